package proxmox

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// httpClient makes the client for Proxmox. It never follows a redirect: pveproxy answers plain
// HTTP with one, and a POST that follows it becomes a GET.
func httpClient(cfg Config) (*http.Client, error) {
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if cfg.HTTP != nil {
		hc := *cfg.HTTP
		hc.CheckRedirect = stay
		return &hc, nil
	}
	trust, err := trustOf(cfg.CA, cfg.Fingerprint)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Client{
		CheckRedirect: stay,
		Transport: &http.Transport{
			DialContext:         dialer.DialContext,
			TLSClientConfig:     trust,
			TLSHandshakeTimeout: 10 * time.Second,
			// pveproxy closes an idle connection after 5 s (pve-http-server, AnyEvent.pm): a POST
			// that meets such a close has an unknown outcome.
			IdleConnTimeout:     3 * time.Second,
			MaxIdleConns:        64,
			MaxIdleConnsPerHost: 16,
			// a pveproxy worker serves 500 connections, and drops keep-alive near that
			MaxConnsPerHost:        256,
			MaxResponseHeaderBytes: 64 << 10, // an error's whole text stands in the status line
		},
	}, nil
}

// trustOf says which certificates are Proxmox'. With a CA it is the only one that counts; a
// fingerprint alone replaces the chain, since a node's own certificate has no public CA, and
// with a CA both must hold. Nothing given: the system's CAs.
func trustOf(ca *x509.CertPool, fingerprint string) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: ca}
	if fingerprint == "" {
		return cfg, nil
	}
	want, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(fingerprint), ":", ""))
	if err != nil || len(want) != sha256.Size {
		return nil, errors.New("the fingerprint is not a SHA-256 in hex")
	}
	// The check below replaces the chain's; it is never left out.
	cfg.InsecureSkipVerify = ca == nil
	cfg.VerifyConnection = func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 {
			return errFingerprint
		}
		have := sha256.Sum256(s.PeerCertificates[0].Raw)
		if subtle.ConstantTimeCompare(have[:], want) != 1 {
			return fmt.Errorf("%w: it has %s", errFingerprint, hex.EncodeToString(have[:]))
		}
		return nil
	}
	return cfg, nil
}

var errFingerprint = errors.New("the certificate's fingerprint is not the configured one")

// isTLS tells whether a connection failed over who the other side is.
func isTLS(err error) bool {
	var (
		chain *tls.CertificateVerificationError
		plain tls.RecordHeaderError
	)
	return errors.Is(err, errFingerprint) || errors.As(err, &chain) || errors.As(err, &plain)
}
