package proxmox

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"mayfly/internal/fleet"
)

// contractDir finds the folder with the captured answers: shared/contract beside a folder above.
func contractDir(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		c := filepath.Join(dir, "shared", "contract", "proxmox")
		if _, err := os.Stat(c); err == nil {
			return c
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Skip("no shared/contract/proxmox in any folder above: the captured answers are missing")
		}
		dir = up
	}
}

// An exchange is one captured answer.
type exchange struct {
	method, path string
	status       int
	reason       string
	body         string
}

var (
	statusLine = regexp.MustCompile(`^HTTP/1\.[01] (\d{3}) ?(.*)$`)
	headerURL  = regexp.MustCompile(`\b(GET|POST|PUT|DELETE|HEAD|PATCH) (\S+)`)
	curlURL    = regexp.MustCompile(`https?://\S+?/api2/[a-z]+/(\S*)`)
	curlMethod = regexp.MustCompile(`-X (\S+)`)
)

func parseCapture(raw string) []exchange {
	var all []exchange
	method, path := "GET", ""
	lines := strings.Split(strings.ReplaceAll(raw, "\r\n", "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		l := lines[i]
		if strings.HasPrefix(l, "###") {
			method, path = "GET", ""
			if u := curlURL.FindStringSubmatch(l); u != nil {
				path = u[1]
				if m := curlMethod.FindStringSubmatch(l); m != nil {
					method = m[1]
				}
			} else if u := headerURL.FindStringSubmatch(l); u != nil {
				method, path = u[1], u[2]
			}
			continue
		}
		if s := statusLine.FindStringSubmatch(l); s != nil {
			code, _ := strconv.Atoi(s[1])
			e := exchange{method: method, path: "/" + strings.TrimPrefix(path, "/"), status: code, reason: s[2]}
			for i++; i < len(lines) && lines[i] != ""; i++ {
			}
			var body []string
			for i++; i < len(lines) && !strings.HasPrefix(lines[i], "###") && !statusLine.MatchString(lines[i]); i++ {
				body = append(body, lines[i])
			}
			i--
			e.body = strings.TrimSpace(strings.Join(body, "\n"))
			all = append(all, e)
			continue
		}
		// Files of many clients hold bare bodies, one a line.
		if at := strings.IndexByte(l, '{'); at >= 0 {
			d := json.NewDecoder(strings.NewReader(l[at:]))
			var body json.RawMessage
			if d.Decode(&body) != nil {
				continue
			}
			e := exchange{method: method, path: "/" + path, status: 200, body: string(body)}
			if strings.Contains(e.body, `"message"`) {
				e.status = 500
			}
			if strings.HasPrefix(l, "nextid=") {
				e.method, e.path = "POST", "/nodes/pve/qemu/9001/clone"
			}
			if strings.HasPrefix(l, "agent call") {
				e.method, e.path = "POST", "/nodes/pve/qemu/110/agent/ping"
			}
			all = append(all, e)
		}
	}
	return all
}

var vmOf = regexp.MustCompile(`^/nodes/[^/]+/qemu/(\d+)`)

// callOf is the call of ours that an exchange is, or is like.
func callOf(e exchange) (c call, subject string) {
	if m := vmOf.FindStringSubmatch(e.path); m != nil {
		subject = m[1]
	}
	path, _, _ := strings.Cut(e.path, "?")
	end := func(s string) bool { return strings.HasSuffix(path, s) }
	switch {
	case end("/clone") && e.method == "POST":
		return callClone, subject
	case strings.Contains(path, "/tasks/") && end("/status"):
		return callTaskStatus, subject
	case strings.Contains(path, "/tasks/") && end("/log"):
		return callTaskLog, subject
	case end("/tasks"):
		return callTaskList, subject
	case end("/cluster/nextid"):
		return callNextID, subject
	case end("/cluster/resources"):
		return callLook, subject
	case end("/config") && e.method == "GET":
		return callConfig, subject
	case end("/config"):
		return callConfigPut, subject
	case end("/status/current"):
		return callStatus, subject
	case end("/status/start"):
		return callStart, subject
	case end("/status/stop"):
		return callStop, subject
	case e.method == "DELETE" && subject != "" && strings.Count(path, "/") == 4:
		return callDelete, subject
	case end("/agent/ping"):
		return callPing, subject
	case end("/agent/network-get-interfaces"):
		return callInterfaces, subject
	case end("/agent/file-read"):
		return callFileRead, subject
	}
	return call{name: "not_ours", onVM: subject != ""}, subject
}

// decodeLike decodes a 200 into what our call makes of it.
func decodeLike(c call, body []byte) error {
	var data json.RawMessage
	if err := decode(body, nil); err != nil {
		return err
	}
	if decode(body, &data) != nil {
		return nil // data null
	}
	var upid string
	if json.Unmarshal(data, &upid) == nil && strings.HasPrefix(upid, "UPID:") {
		if _, err := parseUPID(upid); err != nil {
			return err
		}
	}
	switch c {
	case callTaskList:
		var rows []taskRow
		if err := decode(body, &rows); err != nil {
			return err
		}
		for _, r := range rows {
			if _, err := parseUPID(string(r.UPID)); err != nil || r.Status == "" {
				return fmt.Errorf("row %+v: %w", r, err)
			}
		}
	case callLook:
		var rows []resource
		if err := decode(body, &rows); err != nil {
			return err
		}
		for _, r := range rows {
			if r.Type == "" || r.guest() && (r.VMID.whole() == 0 || r.Node == "") {
				return fmt.Errorf("row %+v", r)
			}
		}
	case callConfig:
		var cfg vmConfig
		if err := decode(body, &cfg); err != nil {
			return err
		}
		if cfg.Lock == "" && macOf(string(cfg.Net0)) == "" {
			return fmt.Errorf("no MAC in net0 %q", cfg.Net0)
		}
	case callInterfaces:
		var a agentAnswer
		if err := decode(body, &a); err != nil {
			return err
		}
		if list, err := readInterfaces(a); err != nil || len(list) == 0 {
			return fmt.Errorf("%d interfaces: %w", len(list), err)
		}
	case callNextID:
		var id number
		if err := decode(body, &id); err != nil {
			return err
		}
		if id.whole() < 100 {
			return fmt.Errorf("nextid %v", id)
		}
	}
	return nil
}

// verdicts are what the captures' errors come to, in the order of the file: cause/class.
var verdicts = map[string]string{
	"9.2/clone-newid-taken":                     "taken/taken",
	"9.2/during-clone-same-newid":               "taken/taken",
	"9.2/race-nextid-then-clone-6-clients":      "taken/taken taken/taken taken/taken taken/taken taken/taken",
	"9.2/clone-worker-sigkill":                  "lost/unknown",
	"9.2/task-stop-own-clone":                   "interrupted/",
	"9.2/clone-storage-fails":                   "no_space/full",
	"9.2/clone-full-storage-fails":              "no_space/full",
	"9.2/thin-clone-pool-full":                  "no_space/full",
	"9.2/clone-linked-with-storage":             "unsupported/config",
	"9.2/clone-linked-from-nontemplate":         "unsupported/config",
	"9.2/clone-unknown-template":                "denied/config",
	"9.2/clone-unknown-template-root":           "missing/config",
	"9.2/clone-no-pool-denied":                  "denied/config",
	"9.2/clone-no-newid":                        "bad_request/config",
	"9.2/clone-newid-abc":                       "bad_request/config",
	"9.2/clone-unknown-pool":                    "denied/config",
	"9.2/auth-bad-secret":                       "bad_token/config",
	"9.2/auth-expired-token":                    "bad_token/config",
	"9.2/auth-no-header":                        "bad_token/config",
	"9.2/nextid-check-taken":                    "bad_request/config",
	"9.2/delete-missing":                        "denied/hidden",
	"9.2/delete-missing-as-root":                "missing/gone",
	"9.2/delete-running":                        "still_running/busy",
	"9.2/delete-protected":                      "protected/busy",
	"9.2/after-killed-clone-delete":             "locked/busy",
	"9.2/after-killed-clone-start":              "locked/busy",
	"9.2/during-clone-config":                   "denied/hidden",
	"9.2/during-clone-status":                   "denied/hidden",
	"9.2/rootduring-clone-config-put":           "locked/busy",
	"9.2/rootduring-clone-start":                "config_lock/",
	"9.2/stop-lock-timeout-after-quick-restart": "config_lock/",
	"9.2/start-already-running":                 "already_running/",
	"9.2/start-qemu-fails":                      "start_failed/",
	"9.2/start-disk-missing":                    "start_failed/",
	"9.2/start-template":                        "unsupported/config",
	"9.2/start-missing-vm-as-root":              "missing/gone",
	"9.2/stop-missing-vm-as-root":               "missing/gone",
	"9.2/shutdown-timeout":                      "timed_out/",
	"9.2/status-missing-vm":                     "denied/hidden",
	"9.2/status-missing-vm-as-root":             "missing/gone",
	"9.2/agent-ping-not-running":                "agent_silent/not_ready",
	"9.2/agent-ping-paused":                     "agent_silent/not_ready",
	"9.2/agent-ping-vm-stopped":                 "not_running/",
	"9.2/agent-ping-missing-vm-as-root":         "missing/gone",
	"9.2/agent-not-configured":                  "agent_missing/config agent_missing/config",
	"9.2/agent-zero-at-start":                   "agent_silent/not_ready",
	"9.2/agent-file-read-missing":               "agent_error/not_ready",
	"9.2/agent-exec-nosuchfile":                 "lost/ lost/",
	"9.2/narrow-delete-again":                   "denied/hidden",
	"9.2/node-unknown-as-root":                  "wrong_setting/config",
	"9.2/node2-unreachable-status":              "unreachable/",
	"9.2/pvedaemon-down-protected-call":         "unreachable/",
	"9.2/pmxcfs-down-clone":                     "no_service/",
	"9.2/pmxcfs-down-delete":                    "no_service/",
	"9.2/noquorum-clone":                        "no_quorum/",
	"9.2/noquorum-start":                        "no_quorum/",
	"9.2/noquorum-config-put":                   "no_quorum/",
	"9.2/noquorum-delete":                       "no_quorum/",
	"9.2/task-unknown-upid":                     "no_task/unknown",
	"9.2/task-bad-upid":                         "no_task/unknown",
	"9.2/http-plain-on-8006":                    "not_proxmox/config",
	"9.2/http-delete-with-body":                 "unsupported/config",
	"9.2/http-chunked-body":                     "unsupported/config",
	"9.2/warnings-start-efi":                    "",
	"9.2/warnings-delete":                       "",
	"9.2/clone-linked-ok":                       "",
	"9.2/stop-when-stopped":                     "",
	"8.4/clone-newid-taken":                     "taken/taken",
	"8.4/clone-linked-with-storage":             "unsupported/config",
	"8.4/clone-unknown-template-root":           "missing/config",
	"8.4/auth-bad-secret":                       "bad_token/config",
	"8.4/delete-missing":                        "denied/hidden",
	"8.4/delete-missing-as-root":                "missing/gone",
	"8.4/delete-running":                        "still_running/busy",
	"8.4/agent-ping-not-running":                "agent_silent/not_ready",
	"8.4/agent-ping-vm-stopped":                 "not_running/",
	"8.4/start-already-running":                 "already_running/",
	"8.4/start-qemu-fails":                      "start_failed/",
	"8.4/node-unknown":                          "wrong_setting/config",
	"8.4/nextid-check-taken":                    "bad_request/config",
	"8.4/task-unknown":                          "no_task/unknown",
	"8.4/agent-exec-nosuchfile":                 "lost/",
	"8.4/clone-linked-ok":                       "",
}

// TestCapturesClassify decodes every captured answer and classifies every captured error: none
// may be of a cause that we do not know.
func TestCapturesClassify(t *testing.T) {
	dir := contractDir(t)
	missing := map[string]bool{}
	for name := range verdicts {
		missing[name] = true
	}
	for _, version := range []string{"9.2", "8.4"} {
		files, err := filepath.Glob(filepath.Join(dir, "captures-"+version, "*.txt"))
		if err != nil {
			t.Fatal(err)
		}
		answers, failures := 0, 0
		for _, file := range files {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			name := version + "/" + strings.TrimSuffix(filepath.Base(file), ".txt")
			delete(missing, name)
			exchanges := parseCapture(string(raw))
			if len(exchanges) == 0 {
				t.Errorf("%s: no answer found", name)
			}
			var got []string
			for _, e := range exchanges {
				answers++
				why, class, failed := verdictOf(t, name, e)
				if !failed {
					continue
				}
				failures++
				if why == other {
					t.Errorf("%s: %s %s %d %s: of no known cause", name, e.method, e.path, e.status, e.reason)
				}
				got = append(got, string(why)+"/"+fleet.Class(class))
			}
			if want, ok := verdicts[name]; ok && strings.Join(got, " ") != want {
				t.Errorf("%s: is %q, want %q", name, strings.Join(got, " "), want)
			}
		}
		t.Logf("%s: %d files, %d answers, %d errors", version, len(files), answers, failures)
		if len(files) == 0 || answers == 0 || failures == 0 {
			t.Errorf("%s: %d files, %d answers, %d errors", version, len(files), answers, failures)
		}
	}
	for name := range missing {
		t.Errorf("%s: expected, and no such capture", name)
	}
}

// verdictOf decodes one answer, and tells why it failed if it did, or its task did.
func verdictOf(t *testing.T, name string, e exchange) (cause, error, bool) {
	t.Helper()
	c, subject := callOf(e)
	if e.status != 200 {
		message, fields := errorText(e.reason, []byte(e.body))
		if message == "" {
			t.Errorf("%s: %d without a text", name, e.status)
		}
		why, class := classify(c, subject, e.status, message, fields)
		return why, class, true
	}
	if e.method == "HEAD" {
		return "", nil, false
	}
	if err := decodeLike(c, []byte(e.body)); err != nil {
		t.Errorf("%s: %s %s: %v\n%s", name, e.method, e.path, err, e.body)
	}
	if c != callTaskStatus {
		return "", nil, false
	}
	var s struct {
		ExitStatus text `json:"exitstatus"`
		Kind       text `json:"type"`
		ID         text `json:"id"`
	}
	if decode([]byte(e.body), &s) != nil || s.ExitStatus == "" || ending(s.ExitStatus).well() {
		return "", nil, false
	}
	why, class := classify(taskCall(string(s.Kind)), string(s.ID), 0, string(s.ExitStatus), nil)
	return why, class, true
}
