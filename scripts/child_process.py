"""The end of a child process: asked first, made to after a while. Any child of the scripts."""

import subprocess


def end(process: "subprocess.Popen[bytes]", within_s: float) -> None:
    """SIGTERM, and SIGKILL when it is not gone within the time; gone it is afterwards. One that has ended is let be."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
