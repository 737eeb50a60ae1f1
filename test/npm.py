"""What npm has, for tests of what speaks with us: pinned versions, in a folder that is kept."""
import contextlib, fcntl, json, os, shutil, subprocess
from arena import TOP, Skip


def modules(name, packages):
    """build/NAME/node_modules with these, each PACKAGE@VERSION; each list has a folder of its own, as npm removes all others."""
    if not shutil.which('npm') or not shutil.which('node'):
        raise Skip('no npm, or no node')
    folder = os.path.join(TOP, 'build', name)

    def version(package):
        with contextlib.suppress(OSError), open(os.path.join(folder, 'node_modules', package, 'package.json')) as f:
            return json.load(f)['version']
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, 'lock'), 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # others wait for it
        if any(version(p.rsplit('@', 1)[0]) != p.rsplit('@', 1)[1] for p in packages):
            r = subprocess.run(['npm', 'install', '--no-save', '--no-audit', '--no-fund', '--prefix', folder, *packages],
                               capture_output=True, text=True)
            if r.returncode:
                raise Skip('npm could not install: ' + ' '.join(r.stderr.split())[-300:])
    return os.path.join(folder, 'node_modules')
