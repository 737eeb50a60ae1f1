"""A real browser: Chromium, asked over the W3C's WebDriver protocol, and what a person does with a page."""
import base64, http.client, json, os, re, shutil, subprocess, tempfile, time

ELEMENT = 'element-6066-11e4-a52e-4f735466cecf'
KEYS = dict(Enter='\ue007', Tab='\ue004', Escape='\ue00c', Control='\ue009', Shift='\ue008', Home='\ue011', End='\ue010',
            Left='\ue012', Up='\ue013',
            Right='\ue014', Down='\ue015')
FLAGS = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--window-size=1280,1000', '--lang=en']
# What a page can't see, or isn't there, is no error of ours but of the moment: it is asked again.
PASSING = ('stale element reference', 'no such element', 'element not interactable', 'element click intercepted')


class Gone(Exception):
    """No browser, or it said no."""


class Browser:
    proc = session = None

    def start(self):
        if not shutil.which('chromium') or not shutil.which('chromedriver'):
            raise FileNotFoundError('no chromium, or no chromedriver')
        self.folder = tempfile.mkdtemp(prefix='omniarena-page-')
        for _ in range(5):  # the free port that it takes may be another's in the other family of addresses
            self.proc = subprocess.Popen(['chromedriver', '--port=0'], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                         stderr=subprocess.DEVNULL, text=True, env={**os.environ, 'HOME': self.folder})
            told = iter(self.proc.stdout.readline, '')
            if m := next(filter(None, (re.search(r'started successfully on port (\d+)', l) for l in told)), None):
                break
            self.proc.wait()
        else:
            raise Gone('chromedriver does not start')
        self.http = http.client.HTTPConnection('127.0.0.1', int(m.group(1)), timeout=60)
        options = {'args': FLAGS + ['--user-data-dir=' + self.folder + '/profile'], 'binary': shutil.which('chromium')}
        wanted = {'alwaysMatch': {'goog:chromeOptions': options, 'goog:loggingPrefs': {'browser': 'ALL'}}}
        try:
            self.session = self.ask('POST', '/session', {'capabilities': wanted})['sessionId']
        except Gone:
            self.quit()
            raise

    def ask(self, method, path, body=None):
        path = path if self.session is None else '/session/' + self.session + path
        self.http.request(method, path, json.dumps(body if body is not None else {}) if method == 'POST' else None)
        r = self.http.getresponse()
        value = json.loads(r.read())['value']
        if r.status != 200:
            raise Gone('%s: %s' % (value['error'], value['message'].split('\n')[0]))
        return value

    def quit(self):
        if not self.proc:
            return
        try:
            if self.session:
                self.ask('DELETE', '')
        finally:
            self.proc.terminate()
            self.proc.wait()
            shutil.rmtree(self.folder, ignore_errors=True)

    def patiently(self, fn, seconds=10):
        """fn(), as soon as the page is ready for it."""
        end = time.monotonic() + seconds
        while True:
            try:
                return fn()
            except Gone as e:
                if not str(e).startswith(PASSING) or time.monotonic() > end:
                    raise
                time.sleep(0.02)

    # ---- tabs ----

    def go(self, url):
        self.ask('POST', '/url', {'url': url})

    def tab(self):
        """A new tab, which is in front."""
        handle = self.ask('POST', '/window/new', {'type': 'tab'})['handle']
        self.ask('POST', '/window', {'handle': handle})
        return handle

    def alone(self):
        """A new tab, and no other."""
        old = self.ask('GET', '/window/handles')
        keep = self.tab()
        for handle in old:
            self.ask('POST', '/window', {'handle': handle})
            self.ask('DELETE', '/window')
        self.ask('POST', '/window', {'handle': keep})

    def reload(self):
        self.ask('POST', '/refresh')

    def console(self):
        """What the page's console has got since this was last asked."""
        return [e['level'] + ' ' + e['message'] for e in self.ask('POST', '/se/log', {'type': 'browser'})]

    def cdp(self, command, **params):
        return self.ask('POST', '/goog/cdp/execute', {'cmd': command, 'params': params})

    def shot(self, path):
        with open(path, 'wb') as f:
            f.write(base64.b64decode(self.ask('GET', '/screenshot')))

    # ---- what is on the page, and doing something with it ----

    def js(self, script, *args):
        return self.ask('POST', '/execute/sync', {'script': script, 'args': list(args)})

    def text(self, css):
        """What is seen of it; None: nothing."""
        return next(iter(self.each(css, 'e.checkVisibility() ? e.innerText.trim() : null')), None)

    def each(self, css, what):
        """What a JavaScript expression says of each e that css names."""
        return self.js('return [...document.querySelectorAll(arguments[0])].map(e => %s)' % what, css)

    def texts(self, css):
        return [t for t in self.each(css, 'e.checkVisibility() ? e.innerText.trim() : null') if t is not None]

    def focus(self):
        return self.js('return document.activeElement.id')

    def find(self, css):
        """What css names, or (in quotes) the visible button or link with this text; scrolled to the middle of the window."""
        return self.patiently(lambda: self._find(css))

    def _find(self, css):
        e = self.js('''const all = s => [...document.querySelectorAll(s)], name = arguments[0];
            const e = name[0] !== '"' ? document.querySelector(name) :
                all('button, a').find(e => e.checkVisibility() && [e.textContent.trim(), e.ariaLabel].includes(name.slice(1, -1)));
            e?.scrollIntoView({ block: 'center', behavior: 'instant' }); return e''', css)
        if not e:
            raise Gone('no such element: ' + css)
        return e[ELEMENT]

    def click(self, css):
        self.patiently(lambda: self.ask('POST', '/element/%s/click' % self._find(css)))

    def fill(self, css, text):
        """In place of what it holds."""
        self.patiently(lambda: self.ask('POST', '/element/%s/clear' % self._find(css)))
        e = self.find(css)
        if text:
            self.ask('POST', '/element/%s/value' % e, {'text': text})
        else:
            self.js('document.querySelector(arguments[0]).focus()', css)

    def choose(self, css, option):
        self.js('''const s = document.querySelector(arguments[0]);
            s.focus(); s.value = arguments[1]; s.dispatchEvent(new Event("change"))''', css, option)

    def keys(self, *keys, hold=None):
        """Each: the name of a key, or text; hold: a key that is down meanwhile."""
        seq = [k for key in keys for k in ([KEYS[key]] if key in KEYS else key)]
        acts = [{'type': t, 'value': k} for k in seq for t in ('keyDown', 'keyUp')]
        if hold:
            acts = [{'type': 'keyDown', 'value': KEYS[hold]}, *acts, {'type': 'keyUp', 'value': KEYS[hold]}]
        self.ask('POST', '/actions', {'actions': [{'type': 'key', 'id': 'keyboard', 'actions': acts}]})
