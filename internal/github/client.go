// Package github is our edge to GitHub: the webhook that tells of jobs, and the REST calls
// that give and take back the right to run one.
//
// The facts that it rests on were taken from GitHub's documentation and OpenAPI description
// (2022-11-28) and from issues of the projects around it; where a fact comes from one, the
// comment names it.
package github

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"mayfly/internal/fleet"
)

// Config says where our runners belong and who we are. Only URL and a token are required.
type Config struct {
	// URL is the page that the runners belong to: https://github.com/ORG, https://github.com/OWNER/REPO,
	// or the same on GitHub Enterprise Server.
	URL string
	// API is the base URL of the REST API. Empty means: derived from URL, https://api.github.com for
	// github.com, https://api.SUB.ghe.com for data residency, https://HOST/api/v3 for GHES.
	API string
	// Token is a personal access token. TokenFrom, when set, is asked instead before every request.
	Token     fleet.Secret
	TokenFrom func(context.Context) (fleet.Secret, error)
	// Group is the runner group's id; 0 means 1, the default group. A repository has no other.
	Group int64
	// WorkFolder is the runner's work folder, relative to its root; "" means _work.
	WorkFolder string
	// HTTP sends the requests; nil means a client with a 30 s time-out. Its redirect policy is replaced.
	HTTP *http.Client
	// Observe is told of every answer; call is one of roster, lookup, register, remove, job; outcome is
	// the status code, "limited", or "error" when none came. It must not block.
	Observe func(call, outcome string, took time.Duration)
	// Log hears of requests at debug level and of limits at warn level; nil means silence.
	Log *slog.Logger
	// Burst and Rate are the bucket that registrations are drawn from: Burst at once (0 means 20),
	// then Rate a second (0 means 1). GitHub's secondary limits ask for a second between writes.
	Burst int
	Rate  float64
	// Speed divides the bucket's waits, for a demonstration; 0 means 1.
	Speed float64
}

// Client speaks with GitHub about the runners of one organization or repository. Its
// methods may be called from several goroutines.
type Client struct {
	scope   scope
	token   func(context.Context) (fleet.Secret, error)
	group   int64
	work    string
	http    *http.Client
	observe func(call, outcome string, took time.Duration)
	log     *slog.Logger

	gate   gate          // shut while GitHub asks us to wait
	bucket *bucket       // of registrations
	slots  chan struct{} // requests under way: GitHub allows 100 at once
	budget budget        // what is left of the hour
}

const (
	requestTimeout = 30 * time.Second
	requestsAtOnce = 32
	maxRedirects   = 5
)

// New checks cfg and returns a client; it sends nothing. Its errors are fleet.ErrConfig.
func New(cfg Config) (*Client, error) {
	s, err := parseScope(cfg.URL, cfg.API)
	if err != nil {
		return nil, fmt.Errorf("github: %w: %w", fleet.ErrConfig, err)
	}
	token := cfg.TokenFrom
	if token == nil {
		if cfg.Token == "" {
			return nil, fmt.Errorf("github: %w: no token", fleet.ErrConfig)
		}
		if strings.ContainsFunc(cfg.Token.Reveal(), func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, fmt.Errorf("github: %w: the token has a character that no token has; is there a line end in its file?", fleet.ErrConfig)
		}
		token = func(context.Context) (fleet.Secret, error) { return cfg.Token, nil }
	}
	if cfg.Burst <= 0 {
		cfg.Burst = 20
	}
	if cfg.Rate <= 0 {
		cfg.Rate = 1
	}
	if cfg.Speed <= 0 {
		cfg.Speed = 1
	}
	c := &Client{
		scope: s, token: token, group: max(cfg.Group, 1), work: cfg.WorkFolder, observe: cfg.Observe, log: cfg.Log,
		bucket: newBucket(cfg.Burst, cfg.Rate*cfg.Speed), slots: make(chan struct{}, requestsAtOnce),
	}
	if c.work == "" {
		c.work = "_work"
	}
	if c.observe == nil {
		c.observe = func(string, string, time.Duration) {}
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	client := http.Client{Timeout: requestTimeout}
	if cfg.HTTP != nil {
		client = *cfg.HTTP
	}
	client.CheckRedirect = checkRedirect
	c.http = &client
	return c, nil
}

// URL is the page that the runners belong to, as a runner's configuration wants it.
func (c *Client) URL() string { return c.scope.page }

// checkRedirect follows a renamed repository, but never turns a write into a read, as
// net/http would after 301 and 302, and never leaves TLS. Another host gets no
// Authorization header: net/http sees to that.
func checkRedirect(req *http.Request, via []*http.Request) error {
	switch {
	case len(via) >= maxRedirects:
		return errors.New("too many redirects")
	case req.Method != via[0].Method:
		return http.ErrUseLastResponse
	case via[0].URL.Scheme == "https" && req.URL.Scheme != "https":
		return errors.New("redirect away from TLS")
	}
	return nil
}

// A scope is what runners are registered for.
type scope struct {
	page    string   // for people and runners
	api     *url.URL // base of the REST API, without a slash at its end
	runners string   // path of the runners below api
	needs   string   // the permission that the runner calls want
}

func parseScope(page, api string) (scope, error) {
	u, err := url.Parse(strings.TrimSuffix(page, "/"))
	if err != nil {
		return scope{}, errors.New("url: it cannot be read as one") // net/url's error would quote it
	}
	if u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return scope{}, fmt.Errorf("url %q: want https://github.com/ORG or https://github.com/OWNER/REPO", shown(u))
	}
	if err := secure(u); err != nil {
		return scope{}, err
	}
	s := scope{page: u.String()}
	parts := strings.Split(strings.TrimPrefix(u.Path, "/"), "/")
	switch {
	case parts[0] == "enterprises":
		return scope{}, fmt.Errorf("url %q: enterprise runners are not supported yet: name an organization, or give each organization its own Mayfly", shown(u))
	case len(parts) == 1 && goodOwner(parts[0]):
		s.runners = "/orgs/" + parts[0] + "/actions/runners"
		s.needs = "classic token: admin:org; fine-grained token or App: organization permission Self-hosted runners, read and write"
	case len(parts) == 2 && goodRepo(u.Path[1:]):
		s.runners = "/repos/" + u.Path[1:] + "/actions/runners"
		s.needs = "classic token: repo; fine-grained token or App: repository permission Administration, read and write"
	default:
		return scope{}, fmt.Errorf("url %q: want https://github.com/ORG or https://github.com/OWNER/REPO", shown(u))
	}
	if api == "" {
		api = deriveAPI(u)
	}
	s.api, err = url.Parse(strings.TrimSuffix(api, "/"))
	if err != nil {
		return scope{}, errors.New("api: it cannot be read as a URL")
	}
	if s.api.Host == "" || s.api.User != nil || s.api.RawQuery != "" || s.api.Fragment != "" {
		return scope{}, fmt.Errorf("api %q: want a base URL such as https://github.example.com/api/v3", shown(s.api))
	}
	return s, secure(s.api)
}

func deriveAPI(page *url.URL) string {
	host := strings.ToLower(page.Host)
	switch {
	case host == "github.com" || host == "www.github.com":
		return "https://api.github.com"
	case strings.HasSuffix(host, ".ghe.com"):
		return "https://api." + host
	}
	return page.Scheme + "://" + page.Host + "/api/v3"
}

// shown is u without the parts that may hide a secret.
func shown(u *url.URL) string { return u.Scheme + "://" + u.Host + u.Path }

// secure refuses to send a token in the clear to anywhere but this machine.
func secure(u *url.URL) error {
	host := u.Hostname()
	switch {
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && (host == "localhost" || host == "::1" || strings.HasPrefix(host, "127.")):
		return nil
	}
	return fmt.Errorf("url %q: must be https; plain http only to this machine", shown(u))
}

// goodOwner tells whether s may be an account's login: it goes into a path.
func goodOwner(s string) bool {
	return len(s) >= 1 && len(s) <= 100 && !strings.ContainsFunc(s, func(r rune) bool {
		return !alphanumeric(r) && r != '-' && r != '_'
	})
}

// goodRepo tells whether s is owner/name with nothing in it that means something in a path.
func goodRepo(s string) bool {
	owner, name, ok := strings.Cut(s, "/")
	return ok && goodOwner(owner) && len(name) >= 1 && len(name) <= 100 && name != "." && name != ".." &&
		!strings.ContainsFunc(name, func(r rune) bool { return !alphanumeric(r) && r != '-' && r != '_' && r != '.' })
}

func alphanumeric(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}
