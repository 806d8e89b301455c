package web

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"strings"

	"mayfly/internal/fleet"
)

// tokenRight tells whether the request carries the token: as a bearer, or as the password of
// Basic with any user, so that a browser can ask for it. No token configured: nobody has it.
func tokenRight(r *http.Request, token fleet.Secret) bool {
	if token == "" {
		return false
	}
	given, ok := "", false
	if scheme, rest, found := strings.Cut(r.Header.Get("Authorization"), " "); found && strings.EqualFold(scheme, "Bearer") {
		given, ok = strings.TrimSpace(rest), true
	} else {
		_, given, ok = r.BasicAuth()
	}
	// Hashed first, so that the comparison's time does not tell the token's length either.
	want, got := sha256.Sum256([]byte(token.Reveal())), sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(want[:], got[:]) == 1 && ok
}

// withToken lets only requests with the token through.
func withToken(token fleet.Secret, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !tokenRight(r, token) {
			w.Header().Set("WWW-Authenticate", `Basic realm="Mayfly: any user, the token as password", charset="UTF-8"`)
			fail(w, http.StatusUnauthorized, "this needs the token of web.token_file, as a bearer or as the password of any user")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// localHost refuses requests whose Host is not this machine. Where reads are open, any web page in
// the user's browser could otherwise read them under its own name, by DNS rebinding.
func localHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isLocal(r.Host) {
			fail(w, http.StatusMisdirectedRequest, "without a token Mayfly answers only to localhost, 127.0.0.1 and [::1]")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func isLocal(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	switch strings.ToLower(host) {
	case "localhost", "127.0.0.1", "::1":
		return true
	}
	return false
}

// withHeaders sets what every answer carries. The page has no script and loads only its own style.
func withHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy",
			"default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}
