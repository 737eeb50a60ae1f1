/* L2 net: the Model Context Protocol over POST /mcp: revision 2026-07-28, which has no session, beside 2025-11-25 and 2025-06-18,
 * which begin one (modelcontextprotocol.io/specification, "Streamable HTTP"). What a tool does is api.c's. */
#ifndef MCP_H
#define MCP_H
#include <stdbool.h>
#include <stdint.h>

#include "http.h"
#include "util.h"

enum { MCP_SESSIONS = 64, MCP_SESSION = 32 /* hexadecimal digits */, MCP_ID_MAX = 128 /* bytes of a request's id, as JSON */ };
enum mcp_tool { MCP_EXEC, MCP_CHECK_COMMAND, MCP_AUDIT, MCP_HEALTH, MCP_TOOLS };

enum mcp_kind {
	MCP_ANSWER,   /* the reply is a whole message: result or error */
	MCP_ACCEPTED, /* a notification, which has no answer */
	MCP_CANCEL,   /* the same: of what this session asked with this id, nothing is wanted any more */
	MCP_CALL,     /* a tool is to be called */
};

/* A message that was read; the slices point into the request. */
struct mcp {
	enum mcp_tool tool;
	int status;           /* of the answer */
	uint32_t session;     /* its number, which no other has, or 0 */
	bool begins;          /* initialize: the answer names the session */
	struct str id, token; /* raw JSON: of the request, or of the one that is cancelled; of its progress, .p NULL: none wanted */
	struct str arguments; /* raw JSON, an object, .p NULL: none */
	struct str requested; /* the version that its header names, .p NULL: none */
};

/* Sessions of the older revisions; the one that was unused for longest makes room. Zero it. */
struct mcp_sessions {
	struct mcp_session { char name[MCP_SESSION]; uint32_t number; uint64_t used; /* when, or 0: it is over */ } session[MCP_SESSIONS];
	uint64_t turn;
	uint32_t begun; /* number of the last one */
};

/* Reads a message; the answer, where one is ready, goes into reply. */
enum mcp_kind mcp_read(struct mcp_sessions *s, const struct http_req *r, struct str body, struct mcp *m, struct buf *reply);
/* Ends the session that a request names. False: there is no such one. */
bool mcp_end(struct mcp_sessions *s, const struct http_req *r);
/* What a tool's result is around the object that it is made of, which stands in it twice: as a text and as it is. What comes before
 * the request's id, before the text, before the object, and at the end: of a result, and of one that is an error. */
enum { MCP_BEGIN, MCP_TEXT, MCP_OBJECT, MCP_END, MCP_END_FAILED, MCP_FRAME };
extern const char *const mcp_frame[MCP_FRAME];
/* The session's name: MCP_SESSION digits. */
struct str mcp_session_name(const struct mcp_sessions *s, uint32_t session);
#endif
