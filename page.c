/* L1 pure: the dashboard, as the binary carries it. The Makefile makes page.inc of dash.html. */
#include "page.h"

static const unsigned char html[] = {
#include "build/page.inc"
};

struct str page_html(void)
{
	return (struct str){(const char *)html, sizeof html};
}

struct str page_icon(void)
{
	return str_of("<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><rect width='16' height='16' rx='4' fill='#0b6b4f'/>"
	              "<path d='M4 5l3 3-3 3M8.5 11H12' fill='none' stroke='#fff' stroke-width='1.6' stroke-linecap='round'/></svg>");
}

const char *page_headers(void)
{
	return "Content-Encoding: gzip\r\nVary: Accept-Encoding\r\nReferrer-Policy: no-referrer\r\n"
	       "Cross-Origin-Opener-Policy: same-origin\r\nCross-Origin-Resource-Policy: same-origin\r\nX-Frame-Options: DENY\r\n"
	       "Content-Security-Policy: default-src 'none'; script-src 'sha256-" PAGE_SCRIPT "'; style-src 'sha256-" PAGE_STYLE "'; "
	       "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
	       "require-trusted-types-for 'script'; trusted-types 'none'\r\n";
}
