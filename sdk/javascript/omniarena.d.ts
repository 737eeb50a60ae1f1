/** OmniArena from JavaScript: run shell commands in the server's jail. Times are seconds; every call takes an AbortSignal,
 *  whose abort ends a running command and rejects with the signal's reason. */

export const version: string;

export interface ClientOptions {
	/** Else OMNIARENA_URL, else http://127.0.0.1:7575. */
	url?: string;
	/** With password; else OMNIARENA_USER and OMNIARENA_PASSWORD, else the published ones, which the server takes from its own host alone. */
	user?: string;
	password?: string;
	/** Instead of user and password; else OMNIARENA_TOKEN. */
	token?: string;
	/** As whom requests are counted: 1 to 63 of A-Za-z0-9._- */
	agent?: string;
	/** At most 64 bytes. */
	model?: string;
	/** Seconds that an answer may take beyond the command's own time; 30. */
	timeout?: number;
	/** Seconds that a request refused for its rate, or for want of a free place, is tried again for, as Retry-After says; 30. */
	maxWait?: number;
}
export interface Signal { signal?: AbortSignal }
export interface StreamOptions extends Signal {
	/** stdin; bytes must be UTF-8 (others go by putFiles and a redirection). */
	input?: string | Uint8Array | ArrayBuffer;
	/** Seconds, at most the profile's (5 in strict); of run() at most 290, as Node's fetch waits 300 for a reply. */
	timeout?: number;
	/** false: output as exact bytes. */
	text?: boolean;
	env?: Record<string, string>;
	/** A folder of the jail. */
	cwd?: string;
	/** Names below /tmp, and what is to be in them before the start. The request is at most 2 MiB. */
	putFiles?: Record<string, string | Uint8Array | ArrayBuffer> | Map<string, string | Uint8Array | ArrayBuffer>;
	/** Names below /tmp, or true for all: they come back in `contents`, 1 MiB in all. */
	getFiles?: string[] | true;
	/** The only programs that may run this time. */
	allow?: string[];
}
export interface RunOptions extends StreamOptions {
	/** Throws CommandFailed where the exit status is not 0. */
	check?: boolean;
}
type Binary<O> = O & { text: false };
type Args = string | readonly string[];

/** How a command ended. Output is a string, or bytes with text: false, and empty in what stream() ends with: there it came before. */
export class Result<D = string> {
	readonly args: Args;
	/** 128+N where signal N ended it, 124 where the time was up. */
	readonly returncode: number;
	readonly stdout: D;
	readonly stderr: D;
	readonly durationMs: number;
	readonly signal: string | null;
	readonly timedOut: boolean;
	/** The memory limit ended it. */
	readonly oom: boolean;
	/** More came than the server keeps, 1 MiB a stream by default. */
	readonly stdoutTruncated: boolean;
	readonly stderrTruncated: boolean;
	readonly stdoutBytes: number;
	readonly stderrBytes: number;
	/** Bytes that are no UTF-8 became U+FFFD. */
	readonly stdoutLossy: boolean;
	readonly stderrLossy: boolean;
	/** What it left below /tmp. */
	readonly files: string[];
	readonly filesTruncated: boolean;
	readonly contents: Map<string, Uint8Array>;
	readonly contentsAbsent: string[];
	/** What the jail refused, with a count and a hint each. */
	readonly denied: Array<Record<string, unknown>>;
	readonly usage: { cpuMs: number; maxRssKb: number; readBytes: number; writeBytes: number } | null;
	readonly wouldBlock: string | null;
	/** Throws CommandFailed where the exit status is not 0. */
	checkReturncode(): void;
}
export class Output<D = string> {
	readonly stream: 'stdout' | 'stderr';
	readonly data: D;
}
export interface Event { kind: 'audit' | 'metrics' | 'lost' | string; data: Record<string, unknown>; /** Of an audit row: its number. */ id: number | null }
export interface Verdict { allowed: boolean; code: string; rule: string | null; program: string | null; reason: string | null; commands: string[] }

/** Any failure but a wrong argument (TypeError, RangeError: nothing was sent) and an abort. `code`: the server's word, or 'connection', 'reply'. */
export class OmniArenaError extends Error { readonly code: string; readonly status: number }
/** The credentials are wrong, or not for this. */
export class Unauthorized extends OmniArenaError {}
/** The server can't accept the request as it is; nothing ran. */
export class BadRequest extends OmniArenaError {}
/** The policy refuses the command; nothing ran. */
export class Blocked extends OmniArenaError { readonly rule: string | null; readonly program: string | null; readonly reason: string | null; readonly allowed: string[] }
/** Too many requests or agents, also after maxWait; nothing ran. retryAfter: seconds. */
export class RateLimited extends OmniArenaError { readonly retryAfter: number }
/** Too many commands at once, or the server is shutting down; nothing ran. */
export class Busy extends OmniArenaError { readonly retryAfter: number }
/** The agent's token budget is spent. Never tried again. */
export class BudgetExceeded extends OmniArenaError {}
/** No server, no jail, no audit log, or a reply that makes no sense. mayHaveRun: what the request asked for may have happened. */
export class Unavailable extends OmniArenaError { readonly mayHaveRun: boolean }
/** check: true, and the exit status is not 0. */
export class CommandFailed extends OmniArenaError { readonly result: Result<string | Uint8Array> }
/** The command took longer than it may, and was ended; with the output so far. */
export class Timeout extends OmniArenaError { readonly result: Result<string | Uint8Array>; readonly stdout: string | Uint8Array; readonly stderr: string | Uint8Array }

/** A server, and as whom it is asked. Any method may reject with Unauthorized, RateLimited, Busy, BadRequest and Unavailable. */
export class Client {
	constructor(options?: ClientOptions);
	readonly agent?: string;
	timeout: number;
	maxWait: number;
	/** Runs a command and waits for its end: a string for /bin/sh -c, an array without a shell. Rejects with Blocked, BudgetExceeded, Timeout, CommandFailed. */
	run(args: Args, options: Binary<RunOptions>): Promise<Result<Uint8Array>>;
	run(args: Args, options?: RunOptions): Promise<Result>;
	/** Its output while it runs, last the Result. It starts with the first next(); break, return() or an abort ends the command. */
	stream(args: Args, options: Binary<StreamOptions>): AsyncGenerator<Output<Uint8Array> | Result<Uint8Array>, void, void>;
	stream(args: Args, options?: StreamOptions): AsyncGenerator<Output | Result, void, void>;
	/** What happens, from the first next() on, or after the row with this `seq`. A connection that broke is made again and goes on
	 *  where it stopped, until the server could not be reached for maxWait seconds. */
	events(options?: { after?: number } & Signal): AsyncGenerator<Event, void, void>;
	/** What the policy says of a command line. Runs nothing, counts nothing. profile: 0 to 2 or its name, else the one in force. */
	check(cmd: string, options?: { profile?: number | string } & Signal): Promise<Verdict>;
	health(options?: Signal): Promise<Record<string, unknown>>;
	agents(options?: Signal): Promise<Array<Record<string, unknown>>>;
	/** The newest rows of the audit log that are in memory (64), oldest first. */
	audit(options?: { agent?: string; limit?: number; after?: number } & Signal): Promise<Array<Record<string, unknown>>>;
	policy(options?: Signal): Promise<Record<string, unknown>>;
	/** In force at once; resolves with the new policy. `persisted` false: it will not survive a restart. */
	addRule(which: 'blacklist' | 'whitelist', pattern: string, options?: Signal): Promise<Record<string, unknown>>;
	removeRule(which: 'blacklist' | 'whitelist', pattern: string, options?: Signal): Promise<Record<string, unknown>>;
	/** For everybody: 0 strict, 1 moderate, 2 permissive, or the name. */
	setProfile(profile: number | string, options?: Signal): Promise<Record<string, unknown>>;
	/** Tokens, 0 for no limit. Without agent: what holds for those that have no budget of their own. */
	setBudget(maxTokens: number, options?: { agent?: string } & Signal): Promise<Record<string, unknown>>;
	/** Adds what the agent spent since the last report. Goes out with the next request, and is counted once, also when that is tried
	 *  again; if the connection breaks in the middle, at most once. Sends nothing itself. */
	reportUsage(tokensIn: number, tokensOut: number, model?: string): void;
}
