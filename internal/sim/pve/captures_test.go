package pve

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// captures is the folder with what a real Proxmox VE answered.
func captures(t *testing.T, version string) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		want := filepath.Join(dir, "shared", "contract", "proxmox", "captures-"+version)
		if _, err := os.Stat(want); err == nil {
			return want
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Skip("no folder shared/contract with captures above the working directory")
		}
		dir = up
	}
}

// An exchange is one request and its answer in a capture.
type exchange struct {
	token        string
	method, path string
	params       []string
	poll         bool // a repetition of "task status" while the client waited
	curl         string
	want         wire
}

var (
	firstLine = regexp.MustCompile(`^### (?:(\d{4}-\S+)|(\+[\d.]+s)) +(?:token=(\S+)  )?(.*)$`)
	paramHead = regexp.MustCompile(` ([a-z][a-z0-9-]*)=`)
)

func readCapture(t *testing.T, file string) []exchange {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var list []exchange
	for _, part := range strings.Split("\n"+strings.ReplaceAll(string(b), "\r", ""), "\n### ")[1:] {
		head, rest, _ := strings.Cut(part, "\n")
		var x exchange
		m := firstLine.FindStringSubmatch("### " + head)
		call := head
		if m != nil {
			x.poll = m[2] != ""
			x.token, call = m[3], m[4]
		}
		if strings.HasPrefix(call, "curl ") {
			x.curl = call
		} else {
			f := strings.SplitN(call, " ", 3)
			x.method, x.path = f[0], f[1]
			if p, query, ok := strings.Cut(x.path, "?"); ok {
				x.path = p
				x.params = strings.Split(query, "&")
			}
			if len(f) == 3 { // values may hold blanks: a parameter starts at " name="
				s := " " + f[2]
				at := slices.DeleteFunc(paramHead.FindAllStringIndex(s, -1), func(a []int) bool {
					return s[a[0]:a[1]] == " born=" // inside of a description
				})
				for i, a := range at {
					end := len(s)
					if i+1 < len(at) {
						end = at[i+1][0]
					}
					x.params = append(x.params, s[a[0]+1:end])
				}
			}
		}
		x.want = parseWire(rest)
		if x.want.code != 0 {
			list = append(list, x)
		}
	}
	return list
}

func parseWire(s string) wire {
	head, body, _ := strings.Cut(s, "\n\n")
	lines := strings.Split(strings.TrimLeft(head, "\n"), "\n")
	var w wire
	f := strings.SplitN(lines[0], " ", 3)
	if len(f) < 2 || !strings.HasPrefix(f[0], "HTTP/") {
		return w
	}
	fmt.Sscan(f[1], &w.code)
	if len(f) > 2 {
		w.reason = f[2]
	}
	for _, l := range lines[1:] {
		k, v, _ := strings.Cut(l, ": ")
		switch k {
		case "Connection":
			w.connection = append(w.connection, v)
		case "Content-Type":
			w.kind = v
		case "Content-Length":
			w.hasLength = true
		}
	}
	w.body = strings.TrimSpace(body)
	return w
}

// same compares an answer with the captured one: status, reason phrase, Connection and Content-Type
// headers, presence of a body, and the JSON's shape. Texts are equal where they carry meaning; ids,
// UPIDs, dates and measured numbers only have the same type.
func same(got, want wire, fields map[string]bool) []string {
	var diff []string
	say := func(what string, g, w any) {
		diff = append(diff, fmt.Sprintf("%s: got %v, captured %v", what, g, w))
	}
	if got.code != want.code {
		say("status", got.code, want.code)
	}
	if got.reason != want.reason {
		say("reason", got.reason, want.reason)
	}
	if !slices.Equal(got.connection, want.connection) {
		say("Connection", got.connection, want.connection)
	}
	if got.kind != want.kind {
		say("Content-Type", got.kind, want.kind)
	}
	if got.hasLength != want.hasLength {
		say("has Content-Length", got.hasLength, want.hasLength)
	}
	var g, w any
	if json.Unmarshal([]byte(want.body), &w) != nil {
		if got.body != want.body {
			say("body", got.body, want.body)
		}
		return diff
	}
	if err := json.Unmarshal([]byte(got.body), &g); err != nil {
		say("body", got.body, want.body)
		return diff
	}
	return append(diff, shape("", g, w, fields)...)
}

// meaning are the keys whose strings must be equal.
var meaning = map[string]bool{
	"message": true, "exitstatus": true, "status": true, "type": true, "t": true, "qmpstatus": true, "lock": true,
	"description": true, "tags": true, "hasFeature": true, "release": true, "name": true, "template": true,
}

const unequalTexts = " texts may differ"

func shape(at string, got, want any, fields map[string]bool) []string {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return []string{fmt.Sprintf("%s: got %T, captured an object", at, got)}
		}
		var diff []string
		for k, v := range w {
			switch gv, ok := g[k]; {
			case !ok && !fields[k]:
				diff = append(diff, fmt.Sprintf("%s.%s is missing", at, k))
			case ok:
				if strings.HasSuffix(at, ".errors") && gv != v || meaning[k] && !fields[unequalTexts] && fmt.Sprint(gv) != fmt.Sprint(v) {
					diff = append(diff, fmt.Sprintf("%s.%s: got %q, captured %q", at, k, gv, v))
				}
				diff = append(diff, shape(at+"."+k, gv, v, fields)...)
			}
		}
		for k := range g {
			if _, ok := w[k]; !ok && !fields[k] {
				diff = append(diff, fmt.Sprintf("%s.%s is too much", at, k))
			}
		}
		return diff
	case []any:
		g, ok := got.([]any)
		if !ok {
			return []string{fmt.Sprintf("%s: got %T, captured a list", at, got)}
		}
		return lists(at, g, w, fields)
	default:
		if fmt.Sprintf("%T", got) != fmt.Sprintf("%T", want) {
			return []string{fmt.Sprintf("%s: got %T %v, captured %T %v", at, got, got, want, want)}
		}
	}
	return nil
}

// lists compares element by element: by their order in a task's log, else each by the one of the same
// id, whatever the order.
func lists(at string, got, want []any, fields map[string]bool) []string {
	key := func(x any) string {
		m, ok := x.(map[string]any)
		if !ok {
			return fmt.Sprint(x)
		}
		for _, k := range []string{"n", "vmid", "id", "storage", "volid", "name", "ip-address-type", "poolid"} {
			if v, ok := m[k]; ok && m["upid"] == nil {
				return k + fmt.Sprint(v)
			}
		}
		return ""
	}
	var diff []string
	if len(got) != len(want) {
		diff = append(diff, fmt.Sprintf("%s: %d elements, captured %d: %v", at, len(got), len(want), got))
	}
	for i, w := range want {
		j := slices.IndexFunc(got, func(g any) bool { return key(g) == key(w) })
		if key(w) == "" {
			j = min(i, len(got)-1)
		}
		if j < 0 {
			diff = append(diff, fmt.Sprintf("%s: no element %s", at, key(w)))
			continue
		}
		diff = append(diff, shape(fmt.Sprintf("%s[%s]", at, key(w)), got[j], w, fields)...)
	}
	return diff
}

// captureWorld is the machine that the captures were taken on.
func captureWorld(version string) Config {
	like := map[string]string{
		"efidisk0": "", "bios": "", "machine": "", "sockets": "", "net0": "virtio=BC:24:11:E0:E3:B1,bridge=vmbr0",
		"vga": "none", "boot": "order=virtio0", "args": "-kernel /srv/guest/vmlinuz", "memory": "128", "ostype": "l26",
		"kvm": "0", "serial0": "socket", "cpu": "max", "rng0": "source=/dev/urandom", "cores": "1", "balloon": "0",
	}
	with := func(disk string) map[string]string {
		m := map[string]string{"virtio0": disk + ",discard=on,size=64M"}
		for k, v := range like {
			m[k] = v
		}
		return m
	}
	ms := func(n int) Range {
		return Range{time.Duration(n) * time.Millisecond, time.Duration(n) * time.Millisecond}
	}
	return Config{
		Version: version, NoSysAudit: true,
		Delays: Delays{Clone: ms(300), Start: ms(1200), Stop: ms(500), Destroy: ms(400)},
		Storages: []StorageSpec{
			{Name: "tank", Type: "dir", Total: 270553174016}, {Name: "nolink", Type: "dir", NoImages: true},
		},
		Templates: []TemplateSpec{
			{ID: 9000, Name: "win-template", Storage: "tank", Disks: []string{"virtio0"}, Config: with("tank:9000/base-9000-disk-0.qcow2")},
		},
	}
}

func thin(c *Config) {
	t := c.Templates[0]
	t.ID, t.Name, t.Storage = 9001, "win-template-thin", "local-lvm"
	conf := map[string]string{}
	for k, v := range t.Config {
		conf[k] = v
	}
	conf["virtio0"] = "local-lvm:base-9001-disk-0,discard=on,size=64M"
	t.Config = conf
	c.Templates = append(c.Templates, t)
}

func slowClone(c *Config) {
	c.Delays.Clone = Range{20 * time.Second, 20 * time.Second}
}

// A situation brings the world to where a capture was taken.
type situation struct {
	world  func(*Config)
	before func(*rig)
	// during is called after the first request of the capture was answered.
	during func(*rig)
	// params are sent instead of the captured ones.
	params []string
	// fields may be missing or too much: the real one shows them by chance.
	fields []string
	// unequal: texts may differ, only shapes count.
	unequal bool
}

var tokenOf = map[string]string{
	"orch": orch, "root": root, "nobody": nobody, "narrow": narrow, "orch-privsep-empty": privsep,
	"badsecret": "orch@pve!runner=wrong", "unknown": "orch@pve!nosuch=x", "expired": "orch@pve!old=x", "disabled-user": "gone@pve!t=x",
}

func TestCaptures(t *testing.T) {
	for _, version := range []string{"9.2", "8.4"} {
		dir := captures(t, version)
		files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no captures in %s: %v", dir, err)
		}
		compared, exchanges, skipped := 0, 0, 0
		for _, file := range files {
			name := strings.TrimSuffix(filepath.Base(file), ".txt")
			why, skip := notSimulated(name)
			s, known := situations[name]
			switch {
			case skip && known:
				t.Errorf("%s is both skipped and compared", name)
			case skip:
				if testing.Verbose() {
					t.Logf("%s %s: not compared: %s", version, name, why)
				}
				skipped++
				continue
			case !known:
				t.Errorf("%s %s: neither compared nor skipped with a reason", version, name)
				continue
			}
			t.Run(version+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { exchanges += replay(t, version, file, s) })
			})
			compared++
		}
		t.Logf("%s: %d captures with %d exchanges compared, %d skipped with a reason", version, compared, exchanges, skipped)
	}
}

var upidText = regexp.MustCompile(`UPID(:|%3A)[^/ ]*`)

func replay(t *testing.T, version, file string, s situation) (compared int) {
	cfg := captureWorld(version)
	if s.world != nil {
		s.world(&cfg)
	}
	r := newRig(t, cfg)
	if s.before != nil {
		s.before(r)
	}
	fields := map[string]bool{}
	for _, f := range s.fields {
		fields[f] = true
	}
	fields[unequalTexts] = s.unequal
	list := readCapture(t, file)
	if len(list) == 0 {
		t.Fatal("no exchange in the capture")
	}
	last := list[0].token
	shown := false
	for i, x := range list {
		if x.token != "" {
			last = x.token
		}
		var got wire
		if x.curl != "" {
			got = r.curl(x.curl)
		} else {
			path := upidText.ReplaceAllStringFunc(x.path, func(s string) string {
				switch {
				case strings.Contains(s, "00001111"):
					return s
				case strings.HasPrefix(s, "UPID%"):
					return strings.NewReplacer(":", "%3A", "@", "%40", "!", "%21").Replace(r.upid)
				}
				return r.upid
			})
			if x.poll && strings.Contains(x.want.body, `"status":"running"`) {
				if shown {
					continue
				}
				shown = true
			} else if x.poll {
				r.wait(r.upid)
			}
			if s.params != nil {
				x.params = s.params
			}
			got = r.do(tokenOf[last], x.method, path, x.params...)
			if shown && x.poll && strings.Contains(got.body, `"exitstatus"`) && strings.Contains(x.want.body, `"status":"running"`) {
				continue // it was quicker than the real one
			}
		}
		if strings.HasPrefix(got.text(), "UPID:") {
			r.upid, shown = got.text(), false
		}
		for _, d := range same(got, x.want, fields) {
			t.Errorf("exchange %d, %s %s%s: %s", i+1, x.method, x.path, x.curl, d)
		}
		compared++
		if i == 0 && s.during != nil {
			s.during(r)
		}
	}
	return compared
}

// curl repeats a curl command line of a capture.
func (r *rig) curl(line string) wire {
	r.t.Helper()
	method, target, body, get := "", "", "", false
	var headers []string
	line = strings.ReplaceAll(line, "orch@pve!runner=<secret>", orch)
	u := strings.Index(line, "https://")
	target = strings.TrimPrefix(strings.Fields(line[u:])[0], "https://127.0.0.1:8006")
	line = strings.Replace(line, strings.Fields(line[u:])[0], "", 1)
	for _, opt := range regexp.MustCompile(` (-X|-H|-d|-G|-I|--compressed)\b`).FindAllStringIndex(line, -1) {
		name := strings.TrimSpace(line[opt[0]:opt[1]])
		value := line[opt[1]:]
		if next := regexp.MustCompile(` (-X|-H|-d|-G|-I|--compressed)\b`).FindStringIndex(value); next != nil {
			value = value[:next[0]]
		}
		value = strings.TrimSpace(value)
		switch name {
		case "-X":
			method = value
		case "-I":
			method = "HEAD"
		case "-G":
			get = true
		case "-d":
			body = value
		case "-H":
			headers = append(headers, value)
		}
	}
	switch {
	case get:
		target, body = target+"?"+body, ""
		fallthrough
	case method == "" && body == "":
		if method == "" {
			method = "GET"
		}
	case method == "":
		method = "POST"
	}
	joined := strings.Join(headers, "\n")
	switch {
	case strings.Contains(joined, "chunked"):
		body = fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	case body != "":
		headers = append(headers, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	if body != "" && !strings.Contains(joined, "Content-Type") {
		headers = append(headers, "Content-Type: application/x-www-form-urlencoded")
	}
	w, err := r.raw(method+" "+target+" HTTP/1.1", headers, body)
	if err != nil {
		r.t.Fatal(err)
	}
	return w
}
