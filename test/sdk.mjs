/* The JavaScript SDK for test/sdk.py: one call a line comes in as JSON, its outcome goes out. Bytes are {"$": base64}. */
import { createInterface } from 'node:readline';
import { inspect } from 'node:util';
import * as sdk from '../sdk/javascript/omniarena.mjs';

const kept = new Map();
const out = v => (v instanceof Uint8Array ? { $: Buffer.from(v).toString('base64') } : v instanceof Map ? out(Object.fromEntries(v)) :
	Array.isArray(v) ? v.map(out) : v && typeof v === 'object' ? { ...Object.fromEntries(Object.entries(v).map(([k, x]) => [k, out(x)])),
		...(v instanceof sdk.Result ? { class: 'Result' } : v instanceof sdk.Output ? { class: 'Output' } : {}) } : v);
const into = v => (v && typeof v === 'object' && '$' in v ? new Uint8Array(Buffer.from(v.$, 'base64')) : Array.isArray(v) ? v.map(into) :
	v && typeof v === 'object' ? Object.fromEntries(Object.entries(v).map(([k, x]) => [k, into(x)])) : v);

const own = {
	new: (id, env, options) => {
		for (const k of Object.keys(process.env).filter(k => k.startsWith('OMNIARENA_')))
			delete process.env[k];
		Object.assign(process.env, env);
		kept.set(id, new sdk.Client(options));
	},
	inspect: id => inspect(kept.get(id), { showHidden: true, depth: 9, getters: true }) + JSON.stringify(kept.get(id)),
	open: (id, name, client, ...args) => void kept.set(id, kept.get(client)[name](...args)),
	next: async id => { const { done, value } = await kept.get(id).next(); return done ? { done } : { value: out(value) }; },
	close: id => kept.get(id).return().then(() => undefined),
	/* what a command that is aborted while it runs rejects with */
	abort: (id, cmd, ms) => {
		const ended = new AbortController();
		setTimeout(() => ended.abort(new RangeError('enough')), ms);
		return kept.get(id).run(cmd, { signal: ended.signal }).then(() => 'ran', e => e.message);
	},
	breaks: async (id, cmd) => { for await (const e of kept.get(id).stream(cmd)) return out(e); },
};

createInterface({ input: process.stdin }).on('line', async line => {
	const { call, id, name, args } = JSON.parse(line);
	const say = o => process.stdout.write(JSON.stringify({ call, ...o }) + '\n');
	try {
		const got = await (own[name] ? own[name](id, ...into(args)) : kept.get(id)[name](...into(args)));
		say({ ok: out(got) ?? null });
	} catch (e) {
		say({ error: e.name, message: e.message, stack: e.stack + inspect(e.cause), more: out({ ...e }) });
	}
}).on('close', () => process.exit());
