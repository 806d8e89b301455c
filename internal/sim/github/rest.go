package github

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	hourly       = 5000 // requests an hour of a token
	maxBody      = 1 << 20
	maxNameLen   = 64 // actions/runner issue 1710
	maxLabels    = 100
	maxLabelLen  = 256
	defaultPages = 30
	maxPage      = 100
)

var goodName = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

func isRepo(scope string) bool { return strings.Contains(scope, "/") }

// An answer is what a call comes to.
type answer struct {
	status int
	body   any // nil: no body
	header map[string]string
}

func refuse(status int, format string, arg ...any) answer {
	return answer{status: status, body: map[string]string{
		"message": fmt.Sprintf(format, arg...), "documentation_url": "https://docs.github.com/rest", "status": strconv.Itoa(status),
	}}
}

// A call answers one request with g.mu held.
type call func(*http.Request, []byte) answer

func (g *GitHub) routes() http.Handler {
	api := http.NewServeMux()
	for _, scope := range []string{"/orgs/{org}", "/repos/{owner}/{repo}"} {
		at := scope + "/actions/runners"
		api.HandleFunc("POST "+at+"/generate-jitconfig", g.serve("jitconfig", g.scoped(g.generate)))
		api.HandleFunc("POST "+at+"/registration-token", g.serve("registration_token", g.scoped(g.token)))
		api.HandleFunc("POST "+at+"/remove-token", g.serve("remove_token", g.scoped(g.token)))
		api.HandleFunc("GET "+at, g.serve("runners", g.scoped(g.list)))
		api.HandleFunc("GET "+at+"/{id}", g.serve("runner", g.scoped(g.get)))
		api.HandleFunc("DELETE "+at+"/{id}", g.serve("delete", g.scoped(g.delete)))
	}
	api.HandleFunc("GET /repos/{owner}/{repo}/actions/jobs/{id}", g.serve("job", g.getJob))
	api.HandleFunc("GET /rate_limit", g.serve("rate_limit", g.rate))
	api.HandleFunc("/", g.serve("other", func(*http.Request, []byte) answer { return refuse(http.StatusNotFound, "Not Found") }))
	both := http.NewServeMux()
	both.Handle("/api/v3/", http.StripPrefix("/api/v3", api))
	both.Handle("/", api)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.withFaults(w, r, both) })
}

// serve does what every call shares: credentials, counting, limits, JSON.
func (g *GitHub) serve(name string, c call) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			http.Error(w, "body", http.StatusRequestEntityTooLarge)
			return
		}
		g.mu.Lock()
		g.requests[name]++
		a := g.admit(name, r)
		if a.status == 0 {
			a = c(r, body)
		}
		limit, used, reset := g.limits()
		g.mu.Unlock()

		h := w.Header()
		h.Set("X-RateLimit-Limit", strconv.Itoa(limit))
		h.Set("X-RateLimit-Remaining", strconv.Itoa(max(0, limit-used)))
		h.Set("X-RateLimit-Used", strconv.Itoa(used))
		h.Set("X-RateLimit-Reset", strconv.FormatInt(reset.Unix(), 10))
		h.Set("X-RateLimit-Resource", "core")
		h.Set("X-GitHub-Media-Type", "github.v3; format=json")
		h.Set("X-GitHub-Api-Version-Selected", "2022-11-28")
		for k, v := range a.header {
			h.Set(k, v)
		}
		a.write(w, r)
	}
}

func (a answer) write(w http.ResponseWriter, r *http.Request) {
	if a.body == nil {
		w.WriteHeader(a.status)
		return
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(a.body); err != nil {
		http.Error(w, "encode", http.StatusInternalServerError)
		return
	}
	if r.Method == http.MethodGet && a.status == http.StatusOK {
		sum := sha256.Sum256(b.Bytes())
		tag := `W/"` + hex.EncodeToString(sum[:]) + `"`
		w.Header().Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(a.status)
	_, _ = w.Write(b.Bytes()) // the client went away: nothing to do about it
}

// admit refuses what no call answers. A zero answer lets the request in.
func (g *GitHub) admit(name string, r *http.Request) answer {
	if r.UserAgent() == "" {
		return refuse(http.StatusForbidden, "Request forbidden by administrative rules. Please make sure your request has a User-Agent header")
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if g.cfg.Token != "" && (token != g.cfg.Token || !(strings.EqualFold(scheme, "bearer") || strings.EqualFold(scheme, "token"))) {
		return refuse(http.StatusUnauthorized, "Bad credentials")
	}
	if time.Since(g.window) >= g.scaled(time.Hour) {
		g.window, g.used = time.Now(), 0
	}
	if name == "rate_limit" {
		return answer{}
	}
	if g.cfg.Hourly > 0 && g.used >= g.cfg.Hourly {
		return refuse(http.StatusForbidden, "API rate limit exceeded for user ID 583231.")
	}
	g.used++
	return answer{}
}

func (g *GitHub) limits() (limit, used int, reset time.Time) {
	limit, used, reset = hourly, g.used, g.window.Add(g.scaled(time.Hour))
	if g.cfg.Hourly > 0 {
		return g.cfg.Hourly, used, reset
	}
	return limit, min(used, limit-1), reset
}

// scoped answers 404 for another scope, as GitHub does when a token may not see it.
func (g *GitHub) scoped(c call) call {
	return func(r *http.Request, body []byte) answer {
		scope := r.PathValue("org")
		if scope == "" {
			scope = r.PathValue("owner") + "/" + r.PathValue("repo")
		}
		if !strings.EqualFold(scope, g.cfg.Scope) {
			return refuse(http.StatusNotFound, "Not Found")
		}
		g.expire()
		return c(r, body)
	}
}

func (g *GitHub) generate(_ *http.Request, body []byte) answer {
	var in struct {
		Name   string   `json:"name"`
		Group  int64    `json:"runner_group_id"`
		Labels []string `json:"labels"`
		Work   string   `json:"work_folder"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return refuse(http.StatusBadRequest, "Problems parsing JSON")
	}
	switch {
	case in.Name == "" || len(in.Name) > maxNameLen || !goodName.MatchString(in.Name):
		return refuse(http.StatusUnprocessableEntity, "Invalid request.\n\nName is invalid.")
	case in.Group != 1:
		return refuse(http.StatusUnprocessableEntity, "Invalid request.\n\nRunner group %d does not exist.", in.Group)
	case len(in.Labels) == 0 || len(in.Labels) > maxLabels:
		return refuse(http.StatusUnprocessableEntity, "Invalid request.\n\nLabels must have 1 to %d items.", maxLabels)
	}
	for _, l := range in.Labels {
		if l == "" || len(l) > maxLabelLen {
			return refuse(http.StatusUnprocessableEntity, "Invalid request.\n\nA label is invalid.")
		}
	}
	if in.Work == "" {
		in.Work = "_work"
	}
	r := g.register(in.Name, in.Group, in.Work, in.Labels)
	if r == nil {
		return refuse(http.StatusConflict, "Already exists - A runner with the name %s already exists.", in.Name)
	}
	return answer{status: http.StatusCreated, body: struct {
		Runner runnerView `json:"runner"`
		JIT    string     `json:"encoded_jit_config"`
	}{g.viewRunner(r), g.jit(r)}}
}

func (g *GitHub) token(*http.Request, []byte) answer {
	return answer{status: http.StatusCreated, body: map[string]any{
		"token": "A" + strings.ToUpper(g.random(18)), "expires_at": time.Now().Add(time.Hour).UTC().Format(time.RFC3339),
	}}
}

// list pages as GitHub does: over the runners as they are now, so that rows shift between pages.
func (g *GitHub) list(r *http.Request, _ []byte) answer {
	q := r.URL.Query()
	number := func(key string, missing int) int {
		n, err := strconv.Atoi(q.Get(key))
		if err != nil || n < 1 {
			return missing
		}
		return n
	}
	size, page := min(number("per_page", defaultPages), maxPage), min(number("page", 1), 1<<20)
	rows := g.runners
	if name := q.Get("name"); name != "" {
		rows = nil
		if r := g.byName[name]; r != nil {
			rows = []*registration{r}
		}
	}
	from := min((page-1)*size, len(rows))
	to := min(from+size, len(rows))
	out := make([]runnerView, 0, to-from)
	for _, r := range rows[from:to] {
		out = append(out, g.viewRunner(r))
	}
	a := answer{status: http.StatusOK, header: map[string]string{}, body: struct {
		Total   int          `json:"total_count"`
		Runners []runnerView `json:"runners"`
	}{len(rows), out}}
	link := func(page int, rel string) string {
		q.Set("page", strconv.Itoa(page))
		u := origin(r) + "?" + q.Encode()
		return fmt.Sprintf("<%s>; rel=%q", u, rel)
	}
	var links []string
	if to < len(rows) {
		links = append(links, link(page+1, "next"), link((len(rows)+size-1)/size, "last"))
	}
	if page > 1 {
		links = append(links, link(1, "first"), link(page-1, "prev"))
	}
	if len(links) > 0 {
		a.header["Link"] = strings.Join(links, ", ")
	}
	return a
}

// origin is the URL that the request came to, without its query.
func origin(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	path, _, _ := strings.Cut(r.RequestURI, "?")
	return scheme + "://" + r.Host + path
}

func (g *GitHub) target(r *http.Request) *registration {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return nil
	}
	return g.runner(id)
}

func (g *GitHub) get(r *http.Request, _ []byte) answer {
	t := g.target(r)
	if t == nil {
		return refuse(http.StatusNotFound, "Not Found")
	}
	return answer{status: http.StatusOK, body: g.viewRunner(t)}
}

func (g *GitHub) delete(r *http.Request, _ []byte) answer {
	t := g.target(r)
	switch {
	case t == nil:
		return refuse(http.StatusNotFound, "Not Found")
	case t.job != nil:
		return refuse(http.StatusUnprocessableEntity, "Bad request - Runner %q is still running a job", t.name)
	}
	g.remove(t)
	return answer{status: http.StatusNoContent}
}

func (g *GitHub) getJob(r *http.Request, _ []byte) answer {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return refuse(http.StatusNotFound, "Not Found")
	}
	j := g.job(id)
	if j == nil || !strings.EqualFold(j.spec.Repo, r.PathValue("owner")+"/"+r.PathValue("repo")) {
		return refuse(http.StatusNotFound, "Not Found")
	}
	return answer{status: http.StatusOK, body: g.viewJob(j)}
}

func (g *GitHub) rate(*http.Request, []byte) answer {
	limit, used, reset := g.limits()
	core := map[string]any{"limit": limit, "used": used, "remaining": max(0, limit-used), "reset": reset.Unix()}
	return answer{status: http.StatusOK, body: map[string]any{"resources": map[string]any{"core": core, "actions_runner_registration": core}, "rate": core}}
}
