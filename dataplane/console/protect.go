package console

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
)

// policyOf lets pages load their own files and ask their own server, and nothing else: no inline script, no inline style but the
// one with a hash, no frame, no form, no other host.
func policyOf(styleHash string) string {
	style := strings.TrimSpace("'self' " + styleHash)
	return "default-src 'none'; script-src 'self'; style-src " + style + "; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

// protect sets what browsers need to know about every answer.
func protect(h http.Header, policy string) {
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}

// checkOrigin refuses what pages of other origins ask. Without TLS and users, a page can also have its own name lead to this
// host and then be of the same origin: so the name must be one that no stranger can have.
func checkOrigin(r *http.Request) error {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" && r.Header.Get("Sec-Fetch-Mode") != "navigate" {
		return fmt.Errorf("a page of another origin asks: allowed is the console itself")
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		if u, err := url.Parse(origin); err != nil || u.Host != r.Host {
			return fmt.Errorf("origin %q: allowed is the console itself", origin)
		}
	}
	if r.TLS != nil || r.Header.Get("Authorization") != "" { // a stranger's page has neither the certificate nor the password
		return nil
	}
	name := r.Host
	if host, _, err := net.SplitHostPort(name); err == nil {
		name = host
	}
	if own(strings.Trim(name, "[]")) {
		return nil
	}
	return fmt.Errorf("host %q: without TLS and users, allowed are an IP address, localhost and this host's name", r.Host)
}

// own reports an address, or a name that is this host's.
func own(name string) bool {
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	host, err := os.Hostname()
	return err == nil && name == strings.ToLower(host)
}
