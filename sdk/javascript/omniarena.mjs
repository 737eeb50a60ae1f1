/* OmniArena from JavaScript: run shell commands in the server's jail. Nothing but fetch is used, so it runs in Node 18 and
 * later, Deno, Bun and browsers. omniarena.d.ts says what each method takes, returns and throws. Times are seconds, as in the
 * Python SDK. No redirect is followed, and no reply is believed: sizes, types and times are bounded. */

export const version = '1.0.4';

const MAX_REQUEST = 2 << 20; // bytes of a body: the server's own limit
const MAX_REPLY = 64 << 20; // both streams in base64 at the largest output_limit, 16 MiB
const MAX_EVENT = 8 << 20; // an event of a stream; the largest is `exit` with 1 MiB of files
const MAX_TRIES = 10; // of one request
const LONGEST = 290; // seconds that run() gives a command at most: Node's fetch gives up on a reply after 300
const BEAT = 15; // between two signs of life of a stream
const TOKENS = Number.MAX_SAFE_INTEGER;

// ---- errors ----

export class OmniArenaError extends Error {
	constructor(message, code = '', status = 0, more = {}) {
		super(message);
		this.name = new.target.name;
		Object.assign(this, { code, status }, more);
	}
}
export class Unauthorized extends OmniArenaError {}
export class BadRequest extends OmniArenaError {}
export class Blocked extends OmniArenaError {}
export class RateLimited extends OmniArenaError {}
export class Busy extends OmniArenaError {}
export class BudgetExceeded extends OmniArenaError {}
export class Unavailable extends OmniArenaError {}
export class CommandFailed extends OmniArenaError {}
export class Timeout extends OmniArenaError {}

/* The other side ended the connection ('connection'), or says what is no JSON or OmniArena ('reply'). */
class Broken extends Error {
	constructor(message, code = 'reply') {
		super(message);
		this.code = code;
	}
}

/* The error that a reply which is not 200 stands for, whatever its body is. */
function refusal(reply, o) {
	const text = name => (typeof o[name] === 'string' ? o[name].slice(0, 1000) : null);
	const status = reply.status, code = text('code') ?? 'reply';
	const redirected = reply.type === 'opaqueredirect' || (status >= 300 && status < 400);
	const kind = code === 'origin' || code === 'capability' ? Unauthorized : code === 'budget' ? BudgetExceeded : code === 'busy' ? Busy :
		{ 401: Unauthorized, 403: Blocked, 429: RateLimited }[status] ?? (status >= 400 && status < 500 ? BadRequest : Unavailable);
	const said = text('error') ?? (redirected ? 'the server redirects, which is not followed' : 'HTTP status ' + status);
	const more = {};
	if (kind === Blocked) {
		const allowed = Array.isArray(o.allowed) ? o.allowed.filter(a => typeof a === 'string') : [];
		Object.assign(more, { rule: text('rule'), program: text('program'), reason: text('reason'), allowed });
	}
	if (kind === RateLimited || kind === Busy) { // of another origin a browser does not show it
		const after = reply.headers.get('retry-after') ?? '';
		more.retryAfter = /^\d{1,9}$/.test(after) ? Number(after) : 1;
	}
	if (kind === Unavailable)
		more.mayHaveRun = status !== 503;
	return new kind([said, text('reason')].filter(Boolean).join('; '), code, status, more);
}

// ---- what comes back ----

export class Output {
	constructor(stream, data) {
		Object.assign(this, { stream, data });
	}
}

export class Result {
	constructor(fields) {
		Object.assign(this, fields);
	}
	checkReturncode() {
		if (this.returncode)
			throw new CommandFailed(`command ${shown(this.args)} ended with exit status ${this.returncode}${this.signal ? ` (${this.signal})` : ''}`, 'failed', 200, { result: this });
	}
}

const shown = args => JSON.stringify(args).slice(0, 200);

/* A field, which must have this type, or be null where absent is; with an absent of another type it must be there. */
function pick(o, name, type, absent = null) {
	const v = Object.hasOwn(o, name) ? o[name] : absent;
	const is = Array.isArray(v) ? 'array' : Number.isSafeInteger(v) ? 'integer' : typeof v;
	if (v === null ? absent !== null : is !== type)
		throw new Broken(`'${name}' in the reply is no ${type}`);
	return v;
}

function list(o, name, type = 'string') {
	const v = pick(o, name, 'array', []);
	if (!v.every(x => typeof x === type && x !== null && !Array.isArray(x)))
		throw new Broken(`'${name}' in the reply has other things than ${type}s`);
	return v;
}

function bytes(base64) {
	try {
		if (typeof base64 === 'string' && !/\s/.test(base64))
			return Uint8Array.from(atob(base64), c => c.charCodeAt(0));
	} catch { /* told below */ }
	throw new Broken('the reply has bad base64');
}

function base64(data) {
	const raw = typeof data === 'string' ? new TextEncoder().encode(data) : new Uint8Array(data.buffer ?? data, data.byteOffset ?? 0, data.byteLength);
	let s = '';
	for (let i = 0; i < raw.length; i += 0x8000)
		s += String.fromCharCode(...raw.subarray(i, i + 0x8000));
	return btoa(s);
}

const data = (o, name, text) => (text ? pick(o, name, 'string', '') : bytes(pick(o, name, 'string', '')));

function result(args, o, text) {
	const r = { args, returncode: pick(o, 'exit_code', 'integer', ''), stdout: data(o, 'stdout', text), stderr: data(o, 'stderr', text) };
	for (const name of ['duration_ms', 'stdout_bytes', 'stderr_bytes'])
		r[camel(name)] = pick(o, name, 'integer', 0);
	for (const name of ['timed_out', 'oom', 'stdout_truncated', 'stderr_truncated', 'stdout_lossy', 'stderr_lossy', 'files_truncated'])
		r[camel(name)] = pick(o, name, 'boolean', false);
	const usage = pick(o, 'usage', 'object');
	return new Result({ ...r, signal: pick(o, 'signal', 'string'), files: list(o, 'files'), contentsAbsent: list(o, 'contents_absent'),
		contents: new Map(Object.entries(pick(o, 'contents', 'object', {})).map(([k, v]) => [k, bytes(v)])), denied: list(o, 'denied', 'object'),
		usage: usage && Object.fromEntries(Object.keys(usage).map(k => [camel(k), pick(usage, k, 'integer', 0)])), wouldBlock: pick(o, 'would_block', 'string') });
}

const camel = name => name.replace(/_(.)/g, (_, c) => c.toUpperCase());

function object(text) {
	let o = null;
	try {
		o = JSON.parse(text);
	} catch { /* told below */ }
	if (typeof o !== 'object' || o === null || Array.isArray(o))
		throw new Broken('the reply is no JSON object');
	return o;
}

// ---- one request ----

/* One reply, which ends when one of these signals says so, or when nothing came for too long. */
class Reply {
	#abort = new AbortController();
	#timer;
	#signals;
	#over = () => this.#abort.abort();
	late = false;
	text = '';
	decoder = new TextDecoder('utf-8', { fatal: true });

	constructor(signals) {
		this.#signals = signals;
		signals.forEach(s => s?.throwIfAborted());
		signals.forEach(s => s?.addEventListener('abort', this.#over));
	}

	wait(seconds) {
		clearTimeout(this.#timer);
		this.#timer = setTimeout(() => { this.late = true; this.#abort.abort(); }, Math.min(seconds * 1000, 2 ** 31 - 1));
	}

	async ask(url, init) {
		const reply = await fetch(url, { ...init, signal: this.#abort.signal, redirect: 'manual', cache: 'no-store', credentials: 'omit' });
		this.status = reply.status;
		this.headers = reply.headers;
		this.type = reply.type;
		this.reader = reply.body?.getReader();
	}

	/* The next text of the body; null at its end. */
	async more() {
		const { done, value } = (await this.reader?.read()) ?? { done: true };
		try {
			return done ? null : this.decoder.decode(value, { stream: true });
		} catch {
			throw new Broken('the reply is no UTF-8');
		}
	}

	async whole() {
		const parts = [];
		let size = 0;
		const fits = n => {
			if (n > MAX_REPLY)
				throw new Broken(`the reply is larger than ${MAX_REPLY >> 20} MiB`);
		};
		fits(Number(this.headers.get('content-length') ?? 0));
		for (let piece; (piece = await this.more()) !== null; parts.push(piece))
			fits(size += piece.length);
		this.close();
		return parts.join('');
	}

	/* The next event of a stream; null at its end. */
	async event(patience) {
		const event = { kind: 'message', data: [], id: '' };
		for (let size = 0; ;) {
			let end;
			while ((end = this.text.indexOf('\n')) < 0) {
				if (size + this.text.length > MAX_EVENT)
					throw new Broken(`an event is larger than ${MAX_EVENT >> 20} MiB`);
				this.wait(patience);
				const piece = await this.more();
				if (piece === null)
					return null;
				this.text += piece;
			}
			const line = this.text.slice(0, end).replace(/\r$/, '');
			this.text = this.text.slice(end + 1);
			size += end + 1;
			const [, name, value] = /^([^:]*)(?:: ?)?([^]*)$/.exec(line);
			if (name === 'data')
				event.data.push(value);
			else if (name === 'event')
				event.kind = value;
			else if (name === 'id')
				event.id = value;
			else if (line === '' && event.data.length)
				return { ...event, data: object(event.data.join('\n')) };
			else if (line === '')
				size = 0;
		}
	}

	close() {
		clearTimeout(this.#timer);
		this.#signals.forEach(s => s?.removeEventListener('abort', this.#over));
		this.#abort.abort(); // of a reply that was read to its end this does nothing
	}
}

/* What is true of a 429: whether its tokens were counted all the same. Of exec they are when the global rate has let it in, of
 * others before that; the two rates have one code, and are told apart by the setting's name in the sentence. */
function isCounted(path, e) {
	if (['unauthorized', 'origin', 'capability', 'agents'].includes(e.code) || e.message.includes('log-ins'))
		return false;
	return !(path === '/api/exec' && e.code === 'rate' && !e.message.includes('max_rate_per_agent'));
}

function sleep(seconds, signal) {
	return new Promise((resolve, reject) => {
		const over = () => { clearTimeout(timer); reject(signal.reason); };
		const timer = setTimeout(() => { signal?.removeEventListener('abort', over); resolve(); }, seconds * 1000);
		signal?.addEventListener('abort', over, { once: true });
		if (signal?.aborted)
			over();
	});
}

function env(name) {
	try {
		return globalThis.process?.env?.[name] || undefined;
	} catch { // Deno without the permission
		return undefined;
	}
}

/* The fields of an exec. */
function fields(args, { input, timeout, text = true, env, cwd, putFiles, getFiles, allow }) {
	if (timeout !== undefined && !(timeout >= 0))
		throw new RangeError('timeout must be at least 0');
	if (input !== undefined && typeof input !== 'string')
		input = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(input);
	return {
		...(typeof args === 'string' ? { cmd: args } : { argv: args }), stdin: input, env, cwd, allow, get_files: getFiles,
		timeout_ms: timeout === undefined ? undefined : Math.max(1, Math.ceil(Math.min(timeout, 1e6) * 1000)), encoding: text ? undefined : 'base64',
		put_files: putFiles && Object.fromEntries([...(putFiles instanceof Map ? putFiles : Object.entries(putFiles))].map(([k, v]) => [k, base64(v)])),
	};
}

/* An async generator whose return(), which `break` calls as well, closes the connection at once, also while next() waits. */
function closing(make) {
	const close = new AbortController(), generator = make(close.signal), end = generator.return.bind(generator);
	generator.return = value => { close.abort(); return end(value); };
	return generator;
}

export class Client {
	#auth; // never enumerable, so in no log of this object
	#url;
	#tokens = [0, 0];
	#model;

	constructor({ url, user, password, token, agent, model, timeout = 30, maxWait = 30 } = {}) {
		try {
			this.#url = new URL(url || env('OMNIARENA_URL') || 'http://127.0.0.1:7575');
		} catch { /* told below: what it says has the URL in it */ }
		const at = this.#url;
		if (!at || !/^https?:$/.test(at.protocol) || at.username || at.password || at.search || at.hash)
			throw new TypeError('the URL must be http:// or https:// and a host, without credentials in it');
		if (!token && !user && !password)
			token = env('OMNIARENA_TOKEN');
		if (token && !/^[!-~]+$/.test(token))
			throw new TypeError('a token has printable ASCII characters only');
		if (agent !== undefined && !/^[A-Za-z0-9._-]{1,63}$/.test(agent))
			throw new TypeError('the name of an agent has 1 to 63 of A-Z a-z 0-9 . _ -');
		this.#auth = token ? 'Bearer ' + token :
			'Basic ' + base64(`${user || env('OMNIARENA_USER') || 'arena'}:${password || env('OMNIARENA_PASSWORD') || 'omniarena'}`);
		Object.assign(this, { agent, timeout, maxWait });
		if (model !== undefined)
			this.reportUsage(0, 0, model);
	}

	reportUsage(tokensIn, tokensOut, model) {
		if (![tokensIn, tokensOut].every(n => Number.isSafeInteger(n) && n >= 0))
			throw new TypeError('tokens are whole numbers, at least 0');
		if (model !== undefined && (/\p{Cc}/u.test(model) || new TextEncoder().encode(model).length > 64))
			throw new TypeError('the name of a model has at most 64 bytes of printable characters');
		this.#model = model ?? this.#model;
		this.#tokens = [Math.min(TOKENS, this.#tokens[0] + tokensIn), Math.min(TOKENS, this.#tokens[1] + tokensOut)];
	}

	#headers(tokens, accept, body, last) {
		const h = { Accept: accept, Authorization: this.#auth };
		if (body !== undefined)
			h['Content-Type'] = 'application/json';
		if (this.agent)
			h['X-Agent'] = this.agent;
		if (this.#model) // a header has bytes, of which fetch takes one for each character
			h['X-Model'] = String.fromCharCode(...new TextEncoder().encode(this.#model));
		if (tokens[0] + tokens[1])
			[h['X-Tokens-In'], h['X-Tokens-Out']] = tokens.map(String);
		if (last !== undefined)
			h['Last-Event-ID'] = String(last);
		return h;
	}

	/* What a failure is for the caller. sent: the request may have gone out; fetch does not say. */
	#gone(e, reply, signal, sent = true) {
		reply?.close();
		if (signal?.aborted)
			return signal.reason;
		if (e instanceof OmniArenaError)
			return e;
		const said = e instanceof Broken ? e.message : reply?.late ? 'no answer in time' : e?.cause?.code ?? e?.name ?? 'failed';
		return new Unavailable(`${this.#url.host}: ${said}`, e instanceof Broken ? e.code : 'connection', 0, { mayHaveRun: sent });
	}

	/* The object that is answered, or with stream the reply, of which more is to be read. A 429 is tried again, as nothing was
	 * done; what broke is not, as it may have been. */
	async #call(method, path, { body, patience = 0, stream = false, last, signal, close } = {}) {
		const text = body && JSON.stringify(body);
		if (text && new TextEncoder().encode(text).length > MAX_REQUEST)
			throw new BadRequest('the request is larger than 2 MiB', 'too_large');
		const accept = stream ? 'text/event-stream' : 'application/json', began = Date.now();
		for (let tries = 1; ; tries++) {
			const reply = new Reply([signal, close]), tokens = this.#tokens;
			let o = {};
			this.#tokens = [0, 0];
			try {
				reply.wait(patience + this.timeout);
				await reply.ask(this.#url.href.replace(/\/+$/, '') + path, { method, headers: this.#headers(tokens, accept, text, last), body: text });
				if (stream && reply.status === 200 && reply.headers.get('content-type')?.startsWith(accept))
					return reply;
				const got = await reply.whole();
				if (reply.status === 200 && !stream)
					return object(got);
				try {
					o = object(got);
				} catch { /* its status says enough */ }
			} catch (e) {
				const unsent = e?.cause?.code === 'ECONNREFUSED';
				if (unsent)
					this.reportUsage(...tokens);
				throw this.#gone(e, reply, signal, !unsent);
			}
			const e = refusal(reply, o);
			if (!isCounted(path, e))
				this.reportUsage(...tokens);
			if (e.status !== 429 || !['rate', 'agents', 'busy'].includes(e.code) || tries === MAX_TRIES || Date.now() + e.retryAfter * 1000 > began + this.maxWait * 1000)
				throw e;
			await sleep(e.retryAfter, signal);
		}
	}

	/* Reads something off an object, whose wrong types are an error like others. */
	#take(read) {
		try {
			return read();
		} catch (e) {
			throw this.#gone(e);
		}
	}

	async run(args, options = {}) {
		const { check = false, text = true, signal, timeout = LONGEST } = options;
		const body = fields(args, { ...options, timeout: Math.min(timeout, LONGEST) });
		const o = await this.#call('POST', '/api/exec', { body, signal, patience: Math.min(timeout, LONGEST) + 2 });
		const r = this.#take(() => result(args, o, text));
		if (r.timedOut)
			throw new Timeout(`command ${shown(args)} timed out after ${r.durationMs} ms`, 'timeout', 200, { result: r, stdout: r.stdout, stderr: r.stderr });
		if (check)
			r.checkReturncode();
		return r;
	}

	stream(args, options = {}) {
		return closing(close => this.#stream(args, options, close));
	}

	events(options = {}) {
		return closing(close => this.#events(options, close));
	}

	async *#stream(args, options, close) {
		const { text = true, signal } = options;
		let reply;
		try {
			reply = await this.#call('POST', '/api/exec', { body: fields(args, options), patience: BEAT, stream: true, signal, close });
			for (;;) {
				const event = await reply.event(BEAT + this.timeout);
				if (!event)
					throw new Broken('the connection ended before the command did', 'connection');
				if (event.kind === 'stdout' || event.kind === 'stderr')
					yield new Output(event.kind, data(event.data, 'data', text));
				else if (event.kind === 'error')
					throw new Broken(pick(event.data, 'error', 'string', 'the jail died').slice(0, 1000), pick(event.data, 'code', 'string', 'internal'));
				else if (event.kind === 'exit')
					return yield result(args, event.data, text);
			}
		} catch (e) {
			if (!close.aborted)
				throw e instanceof TypeError || e instanceof RangeError ? e : this.#gone(e, reply, signal);
		} finally {
			reply?.close();
		}
	}

	async *#events({ after, signal }, close) {
		let last = after ?? Math.max(0, ...(await this.audit({ limit: 1, signal })).map(r => r.seq).filter(Number.isSafeInteger));
		for (let reply, lost = 0, pause = 0.1; ; await sleep(pause, signal), pause = Math.min(2, 2 * pause)) {
			try {
				reply = undefined;
				reply = await this.#call('GET', '/api/events', { patience: BEAT, stream: true, last, signal, close });
				lost = 0;
				for (let event; (event = await reply.event(BEAT + this.timeout)); pause = 0.1) {
					const id = /^\d{1,15}$/.test(event.id) ? Number(event.id) : null;
					last = id ?? last;
					yield { kind: event.kind, data: event.data, id };
				}
			} catch (e) {
				if (close.aborted)
					return;
				const gone = this.#gone(e, reply, signal);
				const may = (gone instanceof Unavailable && gone.code !== 'reply') || gone instanceof Busy;
				if (!may || (!reply && !lost) || (lost && Date.now() - lost + pause * 1000 > this.maxWait * 1000))
					throw gone;
			} finally {
				reply?.close();
			}
			lost ||= Date.now();
		}
	}

	async check(cmd, { profile, signal } = {}) {
		const o = await this.#call('POST', '/api/policy/test', { body: { cmd, profile }, signal });
		return this.#take(() => ({ allowed: pick(o, 'allowed', 'boolean', ''), code: pick(o, 'code', 'string', 0), rule: pick(o, 'rule', 'string'),
			program: pick(o, 'program', 'string'), reason: pick(o, 'reason', 'string'), commands: list(o, 'commands') }));
	}

	async agents({ signal } = {}) {
		const o = await this.#call('GET', '/api/agents', { signal });
		return this.#take(() => list(o, 'agents', 'object'));
	}

	async audit({ agent, limit, after, signal } = {}) {
		const query = new URLSearchParams(Object.entries({ agent, limit, after }).filter(([, v]) => v !== undefined));
		const o = await this.#call('GET', '/api/audit?' + query, { signal });
		return this.#take(() => list(o, 'events', 'object'));
	}

	health({ signal } = {}) {
		return this.#call('GET', '/api/health', { signal });
	}

	policy({ signal } = {}) {
		return this.#call('GET', '/api/policy', { signal });
	}

	addRule(which, pattern, { signal } = {}) {
		return this.#call('POST', '/api/policy', { body: { action: 'add', list: which, pattern }, signal });
	}

	removeRule(which, pattern, { signal } = {}) {
		return this.#call('POST', '/api/policy', { body: { action: 'remove', list: which, pattern }, signal });
	}

	setProfile(profile, { signal } = {}) {
		return this.#call('POST', '/api/profile', { body: { profile }, signal });
	}

	setBudget(maxTokens, { agent, signal } = {}) {
		return this.#call('POST', '/api/budget', { body: agent === undefined ? { default: maxTokens } : { agent, max_tokens: maxTokens }, signal });
	}
}
