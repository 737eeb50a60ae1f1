/* L2 net: the Model Context Protocol. Each message stands for itself: of the older revisions' sessions nothing is kept but their
 * names, so that a cancellation finds its request. */
#include "mcp.h"

#include <string.h>
#include <sys/random.h>

#include "conf.h"
#include "json.h"

/* JSON-RPC 2.0 section 5.1, and what the revision 2026-07-28 adds ("Error Codes") */
enum {
	PARSE_ERROR = -32700, INVALID_REQUEST = -32600, METHOD_NOT_FOUND = -32601, INVALID_PARAMS = -32602, INTERNAL_ERROR = -32603,
	HEADER_MISMATCH = -32020, UNSUPPORTED_VERSION = -32022,
};

#define VERSION_KEY "io.modelcontextprotocol/protocolVersion"
#define CAPABILITIES_KEY "io.modelcontextprotocol/clientCapabilities"
static const char modern[] = "2026-07-28";
static const char older[][11] = {"2025-11-25", "2025-06-18"};

#define SERVER "{\"name\":\"omniarena\",\"title\":\"OmniArena\",\"version\":\"" CONF_VERSION "\"}"
#define INSTRUCTIONS "\"instructions\":\"Shell commands run here in a jail: no network, a fresh /tmp, the host's programs read-only. Each " \
	"command starts anew; give files with put_files and have them back with get_files. What the policy forbids is told with its rule.\""
/* Results of every revision carry what the newest one asks for; older clients pass over it. */
#define META "\"resultType\":\"complete\",\"_meta\":{\"io.modelcontextprotocol/serverInfo\":" SERVER "}"
#define CACHED META ",\"ttlMs\":3600000,\"cacheScope\":\"public\""

#define STRING_OF(text) "{\"type\":\"string\",\"description\":\"" text "\"}"
#define HINTS(only_reads) "\"annotations\":{\"readOnlyHint\":" only_reads ",\"destructiveHint\":false,\"openWorldHint\":false}"
#define SCHEMA(properties) "{\"type\":\"object\",\"properties\":{" properties "}"
static const char tools_list[] = "{\"tools\":["
	"{\"name\":\"exec\",\"title\":\"Run a shell command\",\"description\":\"Runs a command line with /bin/sh in a new jail: no network, /tmp is empty and "
	"goes away with the jail, programs are the host's, read-only. The result has stdout, stderr and exit_code; a command that fails is a "
	"result, too. One that the policy blocks is an error with the rule; do not try to get round it. 'denied' says what the jail "
	"refused, with advice.\"," HINTS("false") ",\"inputSchema\":" SCHEMA(
		"\"cmd\":" STRING_OF("the command line") ",\"stdin\":" STRING_OF("its standard input") ",\"cwd\":" STRING_OF("where it starts, inside the jail; /tmp by default")
		",\"env\":{\"type\":\"object\",\"additionalProperties\":{\"type\":\"string\"}},\"timeout_ms\":{\"type\":\"integer\",\"minimum\":1},"
		"\"put_files\":{\"type\":\"object\",\"additionalProperties\":{\"type\":\"string\"},\"description\":\"files for /tmp: name to contents in base64\"},"
		"\"get_files\":{\"type\":\"array\",\"items\":{\"type\":\"string\"},\"description\":\"names in /tmp whose contents are wanted, in base64\"}")
	",\"required\":[\"cmd\"]},\"outputSchema\":" SCHEMA("\"ok\":{\"type\":\"boolean\"},\"stdout\":{\"type\":\"string\"},\"stderr\":{\"type\":\"string\"},"
		"\"exit_code\":{\"type\":\"integer\"},\"error\":{\"type\":\"string\"},\"rule\":{\"type\":[\"string\",\"null\"]}") ",\"required\":[\"ok\"]}},"
	"{\"name\":\"check_command\",\"title\":\"Would this command be allowed?\",\"description\":\"Says what the policy would say to a command line, and which "
	"programs it would start. Runs nothing.\"," HINTS("true") ",\"inputSchema\":" SCHEMA("\"cmd\":" STRING_OF("the command line")
		",\"profile\":{\"enum\":[\"strict\",\"moderate\",\"permissive\"],\"description\":\"by default the one in force\"}") ",\"required\":[\"cmd\"]},"
	"\"outputSchema\":" SCHEMA("\"ok\":{\"type\":\"boolean\"},\"allowed\":{\"type\":\"boolean\"},\"rule\":{\"type\":[\"string\",\"null\"]},"
		"\"commands\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}}") ",\"required\":[\"ok\"]}},"
	"{\"name\":\"audit\",\"title\":\"What was run lately\",\"description\":\"The last events of the audit log, the newest last: commands with their "
	"results, and what was refused.\"," HINTS("true") ",\"inputSchema\":" SCHEMA("\"limit\":{\"type\":\"integer\",\"minimum\":0},\"after\":"
		"{\"type\":\"integer\",\"minimum\":0,\"description\":\"events with a larger seq\"},\"agent\":" STRING_OF("this agent's alone")) "},"
	"\"outputSchema\":" SCHEMA("\"entries\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}},\"events\":{\"type\":\"array\",\"items\":{\"type\":\"object\"}}") "}},"
	"{\"name\":\"health\",\"title\":\"State of the sandbox\",\"description\":\"The profile in force with its limits, the layers of the jail, counters.\","
	HINTS("true") ",\"inputSchema\":" SCHEMA("") "},\"outputSchema\":" SCHEMA("\"ok\":{\"type\":\"boolean\"},\"profile\":{\"type\":\"string\"},"
		"\"isolation\":{\"type\":\"string\"}") ",\"required\":[\"ok\"]}}]," CACHED "}";
static const char tool_names[MCP_TOOLS][14] = {
	[MCP_EXEC] = "exec", [MCP_CHECK_COMMAND] = "check_command", [MCP_AUDIT] = "audit", [MCP_HEALTH] = "health",
};

const char *const mcp_frame[MCP_FRAME] = {
	[MCP_BEGIN] = "{\"jsonrpc\":\"2.0\",\"id\":", [MCP_TEXT] = ",\"result\":{\"content\":[{\"type\":\"text\",\"text\":",
	[MCP_OBJECT] = "}],\"structuredContent\":", [MCP_END] = ",\"isError\":false," META "}}", [MCP_END_FAILED] = ",\"isError\":true," META "}}",
};

/* ---- sessions ---- */

static uint32_t find_session(struct mcp_sessions *s, const struct http_req *r)
{
	struct str name = r->header[HTTP_MCP_SESSION_ID];
	for (uint32_t i = 0; i < MCP_SESSIONS; i++)
		if (s->session[i].used && str_same_ct(name, (struct str){s->session[i].name, MCP_SESSION})) {
			s->session[i].used = ++s->turn;
			return i + 1;
		}
	return 0;
}

/* A new one: its number, or 0 where there is no randomness. */
static uint32_t begin_session(struct mcp_sessions *s)
{
	unsigned char any[MCP_SESSION / 2];
	uint32_t oldest = 0;

	for (uint32_t i = 1; i < MCP_SESSIONS; i++)
		if (s->session[i].used < s->session[oldest].used)
			oldest = i;
	struct buf name = {s->session[oldest].name, 0, MCP_SESSION, false};
	if (getrandom(any, sizeof any, 0) != sizeof any)
		return 0;
	buf_hex(&name, any, sizeof any);
	s->session[oldest].used = ++s->turn;
	return oldest + 1;
}

bool mcp_end(struct mcp_sessions *s, const struct http_req *r)
{
	uint32_t n = find_session(s, r);
	if (n)
		s->session[n - 1].used = 0;
	return n;
}

struct str mcp_session_name(const struct mcp_sessions *s, uint32_t session)
{
	return (struct str){s->session[session - 1].name, MCP_SESSION};
}

/* ---- messages ---- */

static void put_head(struct buf *b, const struct mcp *m)
{
	buf_str(b, "{\"jsonrpc\":\"2.0\",");
	if (m->id.p) /* absent where none could be read */
		buf_printf(b, "\"id\":%.*s,", (int)m->id.n, m->id.p);
}

static enum mcp_kind answer(const struct mcp *m, struct buf *b, const char *result)
{
	put_head(b, m);
	buf_printf(b, "\"result\":%s}\n", result);
	return MCP_ANSWER;
}

static enum mcp_kind fail(struct mcp *m, struct buf *b, int status, int code, const char *message)
{
	m->status = status;
	put_head(b, m);
	buf_printf(b, "\"error\":{\"code\":%d,\"message\":\"%s\"", code, message);
	if (code == UNSUPPORTED_VERSION)
		buf_printf(b, ",\"data\":{\"supported\":[\"%s\",\"%s\",\"%s\"]}", modern, older[0], older[1]);
	buf_str(b, "}}\n");
	return MCP_ANSWER;
}

/* What a message and its params may have. */
enum { ID, METHOD, PARAMS, ENVELOPE };
enum { META_OF, NAME, ARGUMENTS, WANTED, CANCELLED, PARAMETERS };
static const struct json_field envelope[ENVELOPE] = {
	[ID] = {"id", JSON_END, ""}, [METHOD] = {"method", JSON_STRING, "method must be a string"}, [PARAMS] = {"params", JSON_OBJECT, "params must be an object"},
};
static const struct json_field parameters[PARAMETERS] = {
	[META_OF] = {"_meta", JSON_OBJECT, "_meta must be an object"}, [NAME] = {"name", JSON_STRING, "name must be a string"},
	[ARGUMENTS] = {"arguments", JSON_OBJECT, "arguments must be an object"}, [WANTED] = {"protocolVersion", JSON_STRING, "protocolVersion must be a string"},
	[CANCELLED] = {"requestId", JSON_END, ""},
};

/* What a message says of itself. */
struct said { struct json_token f[ENVELOPE], p[PARAMETERS]; struct str version; bool capabilities; };

/* An id or a token: a string or a number, as it stands there; else .p NULL. */
static struct str raw(const struct json_token *t)
{
	struct str s = t->kind == JSON_STRING ? (struct str){t->text.p - 1, t->text.n + 2} : t->text;
	return (t->kind == JSON_STRING || t->kind == JSON_NUMBER) && s.n <= MCP_ID_MAX ? s : (struct str){NULL, 0};
}

static void read_meta(struct said *d, struct mcp *m)
{
	struct json_reader r;
	struct json_token t;

	if (d->p[META_OF].kind == JSON_END)
		return;
	(void)json_enter(&r, d->p[META_OF].text);
	while (json_next(&r, &t) != JSON_CLOSE && t.kind != JSON_END) {
		if (json_is(t.key, VERSION_KEY) && t.kind == JSON_STRING)
			d->version = t.text;
		else if (json_is(t.key, CAPABILITIES_KEY) && t.kind == JSON_OBJECT)
			d->capabilities = true;
		else if (json_is(t.key, "progressToken"))
			m->token = raw(&t);
		if (t.kind == JSON_OBJECT || t.kind == JSON_ARRAY)
			(void)json_skip(&r, &t); /* it was checked */
	}
}

static bool is_older(struct str version)
{
	for (size_t i = 0; i < countof(older); i++)
		if (str_eq(version, older[i]))
			return true;
	return false;
}

/* Whether a header says what the body does; a value that no header can carry comes in base64. */
static bool same(struct str header, struct str body)
{
	static const char begin[] = "=?base64?", end[] = "?=";
	char plain[256];
	size_t around = sizeof begin + sizeof end - 2;

	if (header.n < around || header.n > sizeof plain || memcmp(header.p, begin, sizeof begin - 1) != 0 ||
	    memcmp(header.p + header.n - 2, end, 2) != 0)
		return header.n == body.n && memcmp(header.p, body.p, body.n) == 0;
	long n = base64_decode((struct str){header.p + sizeof begin - 1, header.n - around}, plain);
	return n >= 0 && (size_t)n == body.n && memcmp(plain, body.p, body.n) == 0;
}

/* The era that a message belongs to: NULL, or it is answered. d->version is empty for the older ones. */
static bool is_acceptable(struct mcp_sessions *s, const struct http_req *r, struct said *d, struct mcp *m, struct buf *b)
{
	const struct str *h = r->header;
	bool begins = json_is(d->f[METHOD].text, "initialize");

	if (!d->version.p && h[HTTP_MCP_VERSION].p && !begins && !is_older(h[HTTP_MCP_VERSION])) {
		if (str_eq(h[HTTP_MCP_VERSION], modern))
			(void)fail(m, b, 400, INVALID_PARAMS, "_meta lacks " VERSION_KEY);
		else
			(void)fail(m, b, 400, UNSUPPORTED_VERSION, "Unsupported protocol version");
		return false;
	}
	if (!d->version.p) {
		if (!begins && h[HTTP_MCP_SESSION_ID].p && !(m->session = find_session(s, r))) {
			(void)fail(m, b, 404, INVALID_REQUEST, "this session is over; initialize begins a new one");
			return false;
		}
		return true;
	}
	const char *differs = !h[HTTP_MCP_VERSION].p || !same(h[HTTP_MCP_VERSION], d->version) ? "Header mismatch: MCP-Protocol-Version" :
	                      !h[HTTP_MCP_METHOD].p || !same(h[HTTP_MCP_METHOD], d->f[METHOD].text) ? "Header mismatch: Mcp-Method" :
	                      json_is(d->f[METHOD].text, "tools/call") && (!h[HTTP_MCP_NAME].p || !same(h[HTTP_MCP_NAME], d->p[NAME].text)) ?
	                      "Header mismatch: Mcp-Name" : NULL;
	if (differs)
		(void)fail(m, b, 400, HEADER_MISMATCH, differs);
	else if (!str_eq(d->version, modern))
		(void)fail(m, b, 400, UNSUPPORTED_VERSION, "Unsupported protocol version");
	else if (!d->capabilities)
		(void)fail(m, b, 400, INVALID_PARAMS, "_meta lacks " CAPABILITIES_KEY);
	else
		return true;
	return false;
}

static enum mcp_kind initialize(struct mcp_sessions *s, const struct said *d, struct mcp *m, struct buf *b)
{
	struct str wanted = d->p[WANTED].text;

	if (d->p[WANTED].kind == JSON_END)
		return fail(m, b, 200, INVALID_PARAMS, "protocolVersion is missing");
	if (!(m->session = begin_session(s)))
		return fail(m, b, 200, INTERNAL_ERROR, "there is no randomness for a session's name");
	m->begins = true;
	put_head(b, m);
	buf_printf(b, "\"result\":{\"protocolVersion\":\"%.*s\",\"capabilities\":{\"tools\":{}},\"serverInfo\":" SERVER "," INSTRUCTIONS "}}\n",
	           is_older(wanted) ? (int)wanted.n : (int)sizeof older[0] - 1, is_older(wanted) ? wanted.p : older[0]);
	return MCP_ANSWER;
}

static enum mcp_kind call(const struct said *d, struct mcp *m, struct buf *b)
{
	for (m->tool = 0; m->tool < MCP_TOOLS; m->tool++)
		if (d->p[NAME].kind != JSON_END && json_is(d->p[NAME].text, tool_names[m->tool])) {
			m->arguments = d->p[ARGUMENTS].kind != JSON_END ? d->p[ARGUMENTS].text : (struct str){NULL, 0};
			return MCP_CALL;
		}
	return fail(m, b, 200, INVALID_PARAMS, "there is no such tool; tools/list names them");
}

static enum mcp_kind notified(const struct said *d, struct mcp *m)
{
	m->status = 202;
	if (!json_is(d->f[METHOD].text, "notifications/cancelled") || !m->session)
		return MCP_ACCEPTED;
	m->id = raw(&d->p[CANCELLED]);
	return m->id.p ? MCP_CANCEL : MCP_ACCEPTED;
}

enum mcp_kind mcp_read(struct mcp_sessions *s, const struct http_req *r, struct str body, struct mcp *m, struct buf *reply)
{
	struct said d = {.version = {NULL, 0}};
	const char *why;

	*m = (struct mcp){.status = 200};
	if (json_check(body, NULL))
		return fail(m, reply, 400, PARSE_ERROR, "the body is not valid JSON (RFC 8259)");
	if ((why = json_fields(body, envelope, ENVELOPE, d.f)))
		return fail(m, reply, 400, INVALID_REQUEST, why);
	m->id = raw(&d.f[ID]);
	if (d.f[PARAMS].kind != JSON_END && (why = json_fields(d.f[PARAMS].text, parameters, PARAMETERS, d.p)))
		return fail(m, reply, 400, INVALID_PARAMS, why);
	if (d.f[METHOD].kind == JSON_END) { /* an answer to something that was never asked */
		m->status = 202;
		return d.f[ID].kind != JSON_END ? MCP_ACCEPTED : fail(m, reply, 400, INVALID_REQUEST, "method is missing");
	}
	if (d.f[ID].kind != JSON_END && !m->id.p)
		return fail(m, reply, 400, INVALID_REQUEST, "id must be a string or a number of at most 128 bytes");
	read_meta(&d, m);
	d.f[METHOD].text = json_unescape(d.f[METHOD].text); /* what a header beside it says is no JSON */
	d.p[NAME].text = json_unescape(d.p[NAME].text);
	if (!is_acceptable(s, r, &d, m, reply))
		return MCP_ANSWER;
	struct str method = d.f[METHOD].text;
	if (!m->id.p)
		return notified(&d, m);
	if (json_is(method, "tools/call"))
		return call(&d, m, reply);
	if (json_is(method, "tools/list"))
		return answer(m, reply, tools_list);
	if (json_is(method, "server/discover") && d.version.p)
		return answer(m, reply, "{\"supportedVersions\":[\"2026-07-28\"],\"capabilities\":{\"tools\":{}}," INSTRUCTIONS "," CACHED "}");
	if (json_is(method, "initialize") && !d.version.p)
		return initialize(s, &d, m, reply);
	if (json_is(method, "ping") && !d.version.p)
		return answer(m, reply, "{}");
	return fail(m, reply, d.version.p ? 404 : 200, METHOD_NOT_FOUND, "Method not found");
}
