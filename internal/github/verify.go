package github

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"mayfly/internal/fleet"
)

const (
	// maxBody is GitHub's cap: a bigger event is not delivered at all.
	maxBody = 25 << 20
	// smallBody is far above a workflow_job delivery (8 to 15 KB). A body over it needs one
	// of a few places, so that what strangers send stays bounded in memory.
	smallBody   = 1 << 20
	largeAtOnce = 4
	// suspectsAtOnce is how many bodies of callers who keep failing are read at once.
	suspectsAtOnce = 16
)

// verified reads the body and checks its signature over the raw bytes; status is 0 when
// the body was signed with a secret of ours.
func (h *webhook) verified(w http.ResponseWriter, r *http.Request) (body []byte, status int, result string) {
	caller := callerOf(r.RemoteAddr)
	mac, ok := signature(r.Header.Get("X-Hub-Signature-256"))
	if !ok {
		return nil, h.refuse(w, r, caller, unsigned), unsigned
	}
	if r.ContentLength > maxBody {
		return nil, http.StatusRequestEntityTooLarge, tooLarge
	}
	readers := h.readers
	if h.callers.failing(caller) {
		readers = h.suspects
	}
	if !enter(readers) {
		w.Header().Set("Connection", "close")
		return nil, http.StatusServiceUnavailable, busy
	}
	body, status, result = h.read(w, r)
	leave(readers)
	if status == http.StatusBadRequest {
		h.callers.failed(caller) // a body that never comes holds a place, too
	}
	if status != 0 {
		return nil, status, result
	}
	if !signedBy(h.secrets, body, mac) {
		return nil, h.refuse(w, r, caller, forged), forged
	}
	return body, 0, ""
}

// read reads the body, of which only a few at once may be large.
func (h *webhook) read(w http.ResponseWriter, r *http.Request) (body []byte, status int, result string) {
	all := http.MaxBytesReader(w, r.Body, maxBody)
	body, err := io.ReadAll(io.LimitReader(all, smallBody+1))
	if err != nil {
		return nil, http.StatusBadRequest, malformed
	}
	if len(body) <= smallBody {
		return body, 0, ""
	}
	if !enter(h.large) {
		w.Header().Set("Connection", "close")
		return nil, http.StatusServiceUnavailable, busy
	}
	defer leave(h.large)
	rest, err := io.ReadAll(all)
	if err != nil {
		if _, over := err.(*http.MaxBytesError); over {
			return nil, http.StatusRequestEntityTooLarge, tooLarge
		}
		return nil, http.StatusBadRequest, malformed
	}
	return append(body, rest...), 0, ""
}

// refuse is the status for a delivery that is not GitHub's. Refusals of one caller are
// limited, and with them what they write into the log.
func (h *webhook) refuse(w http.ResponseWriter, r *http.Request, caller string, why string) int {
	if !h.callers.failed(caller) {
		w.Header().Set("Connection", "close")
		w.Header().Set("Retry-After", "60")
		return http.StatusTooManyRequests
	}
	h.log.LogAttrs(r.Context(), slog.LevelWarn, "webhook refused", slog.String("why", why), slog.String("from", caller))
	return http.StatusUnauthorized
}

// signature reads the header X-Hub-Signature-256: sha256= and 64 hex digits.
func signature(header string) (mac []byte, ok bool) {
	digits, ok := strings.CutPrefix(header, "sha256=")
	if !ok || len(digits) != hex.EncodedLen(sha256.Size) {
		return nil, false
	}
	mac, err := hex.DecodeString(digits)
	return mac, err == nil
}

// signedBy tells, in constant time, whether mac is body's with any of the secrets.
func signedBy(secrets []fleet.Secret, body, mac []byte) bool {
	good := false
	for _, s := range secrets {
		want := hmac.New(sha256.New, []byte(s.Reveal()))
		want.Write(body)
		if hmac.Equal(want.Sum(nil), mac) {
			good = true
		}
	}
	return good
}

func enter(places chan struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	default:
		return false
	}
}

func leave(places chan struct{}) { <-places }
