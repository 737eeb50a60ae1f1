"""Packs omniarena.py into a wheel (PEP 517, PEP 427). `pip install` fetches what a back end needs before it builds, also where
setuptools is there already; this one needs nothing, so that it works on a host without a network as well."""
import base64
import hashlib
import os
import re
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))


def read(name):
    with open(os.path.join(HERE, name), encoding='utf-8') as f:
        return f.read()


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    said = dict(re.findall(r'^([a-z-]+) = "(.*)"$', read('pyproject.toml'), re.M))
    info = '%(name)s-%(version)s.dist-info/' % said
    files = {
        'omniarena.py': read('omniarena.py'),
        info + 'METADATA': 'Metadata-Version: 2.1\nName: %(name)s\nVersion: %(version)s\nSummary: %(description)s\nLicense: MIT\n'
                           'Requires-Python: %(requires-python)s\nDescription-Content-Type: text/markdown\n\n' % said + read('README.md'),
        info + 'WHEEL': 'Wheel-Version: 1.0\nGenerator: omniarena\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
    }
    hashed = ((name, base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip('='), len(text.encode())) for name, text in files.items())
    files[info + 'RECORD'] = ''.join('%s,sha256=%s,%d\n' % row for row in hashed) + info + 'RECORD,,\n'
    wheel = '%(name)s-%(version)s-py3-none-any.whl' % said
    with zipfile.ZipFile(os.path.join(wheel_directory, wheel), 'w', zipfile.ZIP_DEFLATED) as z:
        for name, text in files.items():
            z.writestr(zipfile.ZipInfo(name), text)  # always with the same date, so that the same source gives the same wheel
    return wheel
