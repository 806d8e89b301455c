package pve

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// An apiError is an answer of 400 and above.
type apiError struct {
	code    int
	message string
	errors  map[string]string
	plain   bool // from the HTTP layer itself: the text alone, without JSON
	silent  bool // no body and no Content-Length: 401, 59x
	verbose bool // message without the newline that a die has
}

// failed is what becomes of a die in a handler: 500 and its text.
func failed(format string, a ...any) *apiError {
	return &apiError{code: 500, message: fmt.Sprintf(format, a...)}
}

func badParam(name, text string) *apiError {
	return &apiError{code: 400, message: "Parameter verification failed.", errors: map[string]string{name: text}}
}

// paged is a list with its top-level "total".
type paged struct {
	rows  []map[string]any
	total int
}

const (
	maxBody    = 512 << 10        // http-server 5.2.1 and later
	proxyWait  = 30 * time.Second // http-server 6.0: AnyEvent.pm proxy_request
	authWait   = 3 * time.Second
	serverName = "pve-api-daemon/3.0"
)

// Handler is the API of the whole cluster, as the first node's pveproxy serves it.
func (c *Cluster) Handler() http.Handler { return http.HandlerFunc(c.serve) }

func (c *Cluster) serve(w http.ResponseWriter, hr *http.Request) {
	path, inAPI := strings.CutPrefix(hr.URL.Path, "/api2/json")
	path = "/" + strings.Trim(path, "/")
	r := &request{c: c, method: hr.Method, path: path}
	route := r.route()

	c.mu.Lock()
	name := "unknown"
	if route != nil {
		name = route.name
	}
	c.requests[name]++
	acts := c.strike(r.method + " " + path)
	closed := c.closed
	c.mu.Unlock()
	if closed {
		drop(w)
		return
	}
	for _, a := range acts {
		switch a.does {
		case delays:
			pauseFor(c.done, hr, a.wait)
		case dropsBefore:
			drop(w)
			return
		case answers:
			answer(w, &apiError{code: a.code, message: a.text, silent: a.code == 401 || a.code >= 590})
			return
		case taskFails, diskStays:
			r.sabotage = &a
		}
	}
	if e := c.read(r, hr); e != nil {
		answer(w, e)
		return
	}
	var e *apiError
	if r.token, e = c.authenticate(hr.Header); e != nil {
		pauseFor(c.done, hr, c.scale(authWait))
		answer(w, e)
		return
	}
	if r.unexpected { // content where there may be none
		answer(w, &apiError{code: 501, message: fmt.Sprintf("Unexpected content for method '%s'", hr.Method), plain: true})
		return
	}
	if route == nil || !inAPI {
		answer(w, &apiError{code: 501, message: fmt.Sprintf("Method '%s %s' not implemented", hr.Method, path), verbose: true})
		return
	}
	data, e := c.dispatch(r, route, hr)
	for _, a := range acts {
		switch a.does {
		case dropsAfter:
			e = &apiError{code: -1}
		case answersAfter:
			e = &apiError{code: a.code, message: a.text, silent: a.code >= 590}
		default:
			if e == nil {
				data = c.lie(a, data)
			}
		}
	}
	switch {
	case e != nil && e.code < 0: // the client is gone, or shall think so of us
		drop(w)
	case e != nil:
		answer(w, e)
	default:
		reply(w, data, route.protected || r.node != "" && r.node != c.order[0])
	}
}

// dispatch does what pveproxy does with an authenticated request: static permission check, hop to the
// node, parameter check, handler; protected calls in one of the node's pvedaemon workers.
func (c *Cluster) dispatch(r *request, route *route, hr *http.Request) (any, *apiError) {
	c.mu.Lock()
	c.markTouched(r, route)
	var e *apiError
	if route.may != nil {
		e = route.may(r)
	}
	node := r.node
	if node == "" {
		node = c.order[0]
	}
	n := c.nodes[node]
	offline := n != nil && !n.offline.IsZero()
	c.mu.Unlock()
	switch {
	case e != nil:
		return nil, e
	case n == nil:
		return nil, failed("hostname lookup '%s' failed - failed to get address info for: %s: Name or service not known", node, node)
	case offline && r.node != "":
		if !pauseFor(c.done, hr, c.scale(3*time.Second)) {
			return nil, &apiError{code: -1}
		}
		return nil, &apiError{code: 595, message: "No route to host", silent: true}
	}
	if e := route.check(r); e != nil {
		return nil, e
	}
	if !route.protected {
		return route.run(c, r)
	}
	// The work goes on when the caller is gone or the proxy has given up after 30 s of silence.
	type result struct {
		data any
		e    *apiError
	}
	done := make(chan result, 1)
	c.mu.Lock()
	ok := c.spawn(func() {
		select {
		case <-n.workers:
		case <-c.done:
			done <- result{nil, &apiError{code: -1}}
			return
		}
		defer func() { n.workers <- struct{}{} }()
		data, e := route.run(c, r)
		done <- result{data, e}
	})
	c.mu.Unlock()
	if !ok {
		return nil, &apiError{code: -1}
	}
	timer := time.NewTimer(proxyWait)
	defer timer.Stop()
	select {
	case res := <-done:
		return res.data, res.e
	case <-timer.C:
		return nil, &apiError{code: 596, message: "Connection timed out", silent: true}
	case <-hr.Context().Done():
		return nil, &apiError{code: -1}
	}
}

// pauseFor waits; false if the cluster was closed or the caller went away.
func pauseFor(done <-chan struct{}, hr *http.Request, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-done:
	case <-hr.Context().Done():
	}
	return false
}

// read takes the parameters out of the query and the body, with the refusals of the HTTP layer.
func (c *Cluster) read(r *request, hr *http.Request) *apiError {
	refuse := func(code int, format string, a ...any) *apiError {
		return &apiError{code: code, message: fmt.Sprintf(format, a...), plain: true}
	}
	switch hr.Method {
	case "GET", "POST", "PUT", "DELETE":
	default:
		return &apiError{code: 501, message: fmt.Sprintf("method '%s' not available", hr.Method), plain: true, silent: hr.Method == "HEAD"}
	}
	if len(hr.TransferEncoding) > 0 {
		return refuse(501, "chunked transfer encoding not supported")
	}
	r.params = map[string][]string{}
	if hr.ContentLength > 0 {
		if hr.Method == "GET" || hr.Method == "DELETE" {
			r.unexpected = true
			return nil
		}
		if hr.ContentLength > maxBody {
			return refuse(501, "for data too large")
		}
		body, err := io.ReadAll(io.LimitReader(hr.Body, maxBody))
		if err != nil {
			return &apiError{code: -1}
		}
		kind, _, _ := strings.Cut(hr.Header.Get("Content-Type"), ";")
		switch strings.TrimSpace(kind) {
		case "", "application/x-www-form-urlencoded":
			decodeForm(r.params, string(body))
		case "application/json":
			if at, ok := decodeJSON(r.params, body); !ok {
				return refuse(500, "malformed JSON string, neither tag, array, object, number, string or atom, at character offset %d (before \"(end of string)\") at /usr/share/perl5/PVE/APIServer/AnyEvent.pm line 934.", at)
			}
		default:
			return refuse(506, "upload 'Content-Type '%s' not implemented", kind)
		}
	}
	query := map[string][]string{}
	decodeForm(query, hr.URL.RawQuery)
	for k, v := range query {
		r.params[k] = v // the query wins
	}
	return nil
}

// decodeForm splits on & and on ;, and takes the text only up to a second "=", as AnyEvent.pm does.
func decodeForm(into map[string][]string, s string) {
	for _, part := range strings.FieldsFunc(s, func(c rune) bool { return c == '&' || c == ';' }) {
		f := strings.Split(part, "=")
		k, v := unescape(f[0]), ""
		if len(f) > 1 {
			v = unescape(f[1])
		}
		into[k] = append(into[k], v)
	}
}

func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '+':
			b.WriteByte(' ')
		case s[i] == '%' && i+2 < len(s):
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				b.WriteByte('%')
				continue
			}
			b.WriteByte(byte(n))
			i += 2
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// decodeJSON takes an object of scalars and arrays; true and false become 1 and 0.
func decodeJSON(into map[string][]string, body []byte) (offset int64, ok bool) {
	var m map[string]any
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&m); err != nil {
		return int64(len(body)), false
	}
	text := func(v any) string {
		switch v := v.(type) {
		case bool:
			return strconv.Itoa(bit(v))
		case nil:
			return ""
		}
		return fmt.Sprint(v)
	}
	for k, v := range m {
		if list, isList := v.([]any); isList {
			for _, e := range list {
				into[k] = append(into[k], text(e))
			}
			continue
		}
		into[k] = []string{text(v)}
	}
	return 0, true
}

// reply writes a success. Whatever came through pvedaemon or from another node carries both
// "Connection: close" and "Connection: Keep-Alive": pveproxy adds its own header to the copied one.
func reply(w http.ResponseWriter, data any, hopped bool) {
	m := map[string]any{"data": data}
	if p, ok := data.(paged); ok {
		m["data"], m["total"] = p.rows, p.total
	}
	body, err := json.Marshal(m)
	if err != nil {
		answer(w, failed("%s", err))
		return
	}
	h := w.Header()
	h.Set("Cache-Control", "max-age=0")
	h.Set("Pragma", "no-cache")
	h.Set("Server", serverName)
	h.Set("Expires", time.Now().UTC().Format(http.TimeFormat))
	h.Set("Content-Type", "application/json;charset=UTF-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h["Connection"] = []string{"Keep-Alive"}
	if hopped {
		h["Connection"] = []string{"close", "Keep-Alive"}
	}
	w.Write(body) // an error means that nobody listens any more
}

// answer writes an error. The reason phrase carries the message's first line, which net/http cannot
// send: the connection is taken over.
func answer(w http.ResponseWriter, e *apiError) {
	if e.code < 0 {
		drop(w)
		return
	}
	var body []byte
	contentType := ""
	switch {
	case e.silent:
	case e.plain:
		body = []byte(e.message)
	default:
		m := map[string]any{"data": nil, "message": e.message + "\n"}
		if e.verbose {
			m["message"] = e.message
		}
		if e.errors != nil {
			m["errors"] = e.errors
		}
		body, _ = json.Marshal(m) // strings only: it cannot fail
		contentType = "application/json;charset=UTF-8"
	}
	reason, _, _ := strings.Cut(e.message, "\n")
	reason = strings.ReplaceAll(reason, "\r", "")
	now := time.Now().UTC().Format(http.TimeFormat)
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\nCache-Control: max-age=0\r\nConnection: close\r\nDate: %s\r\nPragma: no-cache\r\nServer: %s\r\n", e.code, reason, now, serverName)
	if !e.silent {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	if contentType != "" {
		fmt.Fprintf(&b, "Content-Type: %s\r\n", contentType)
	}
	fmt.Fprintf(&b, "Expires: %s\r\n\r\n", now)
	b.Write(body)

	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil { // a recorder, or HTTP/2: the phrase is lost, the message is not
		w.WriteHeader(e.code)
		w.Write(body)
		return
	}
	defer conn.Close()
	conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	conn.Write(b.Bytes())
}

// drop closes the connection without an answer.
func drop(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		conn.Close()
		return
	}
	panic(http.ErrAbortHandler)
}
