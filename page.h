/* L1 pure: the dashboard, as the binary carries it. */
#ifndef PAGE_H
#define PAGE_H
#include "util.h"

/* dash.html, gzip'ed (RFC 1952): it is sent as it is. */
struct str page_html(void);
/* The icon, image/svg+xml. */
struct str page_icon(void);
/* Header lines that go with the page: nothing but its own script and style runs in it, by their hashes
 * (Content Security Policy Level 3), it asks nobody but its own server, and nobody can frame it. */
const char *page_headers(void);
#endif
