package github

import (
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// unusedLife is how long GitHub keeps a JIT registration whose runner is not connected
// (docs: self-hosted runners reference).
const unusedLife = 24 * time.Hour

// A registration is a runner as GitHub knows it. Guarded by GitHub.mu.
type registration struct {
	id      int64
	name    string
	group   int64
	work    string
	labels  []string
	have    map[string]bool // labels, lower case
	key     string          // what its JIT configuration proves itself with
	met     bool            // a runner has connected with it at least once
	online  bool
	removed bool
	since   time.Time // when online changed last

	session *Session
	job     *job // given to it, picked up or not
	notIdle func()
}

func (r *registration) fits(j *job) bool {
	for _, l := range j.want {
		if !r.have[l] {
			return false
		}
	}
	return len(j.want) > 0
}

// register makes a registration; nil when the name is taken.
func (g *GitHub) register(name string, group int64, work string, labels []string) *registration {
	if g.byName[name] != nil {
		return nil
	}
	g.ids++
	r := &registration{id: g.ids, name: name, group: group, work: work, labels: slices.Clone(labels), since: time.Now(), have: map[string]bool{}}
	for _, l := range labels {
		r.have[strings.ToLower(l)] = true
	}
	r.key = g.random(256)
	g.runners = append(g.runners, r)
	g.byName[name] = r
	return r
}

// remove takes a registration away, whatever it does, and tells its session.
func (g *GitHub) remove(r *registration) {
	if r.removed {
		return
	}
	r.removed = true
	g.leaveIdle(r)
	if i, found := slices.BinarySearchFunc(g.runners, r.id, func(r *registration, id int64) int { return int(r.id - id) }); found {
		g.runners = slices.Delete(g.runners, i, i+1)
	}
	delete(g.byName, r.name)
	r.online = false
	if r.session != nil {
		r.session.nudge()
	}
}

func (g *GitHub) runner(id int64) *registration {
	i, found := slices.BinarySearchFunc(g.runners, id, func(r *registration, id int64) int { return int(r.id - id) })
	if !found {
		return nil
	}
	return g.runners[i]
}

// expire drops registrations whose runner has not been connected for a day.
func (g *GitHub) expire() {
	limit := g.scaled(unusedLife)
	for _, r := range slices.Clone(g.runners) {
		if !r.online && r.job == nil && time.Since(r.since) > limit {
			g.remove(r)
		}
	}
}

func (g *GitHub) setOnline(r *registration, online bool) {
	if r.online != online {
		r.online, r.since = online, time.Now()
	}
}

// random returns n random bytes in base64.
func (g *GitHub) random(n int) string {
	b := make([]byte, 0, n+8)
	for len(b) < n {
		b = binary.LittleEndian.AppendUint64(b, g.rng.Uint64())
	}
	return base64.StdEncoding.EncodeToString(b[:n])
}

// settings is .runner, as far as the service fills it in.
type settings struct {
	AgentID     string `json:"AgentId"`
	AgentName   string `json:"AgentName"`
	PoolID      string `json:"PoolId"`
	PoolName    string `json:"PoolName"`
	Ephemeral   string `json:"Ephemeral"`
	ServerURL   string `json:"ServerUrl"`
	ServerURLV2 string `json:"ServerUrlV2"`
	UseV2Flow   string `json:"UseV2Flow"`
	GitHubURL   string `json:"GitHubUrl"` // the service leaves it empty for JIT runners
	WorkFolder  string `json:"WorkFolder"`
}

type credentials struct {
	Scheme string            `json:"Scheme"`
	Data   map[string]string `json:"Data"`
}

// rsaKey has the members of .credentials_rsaparams. The numbers are random, not a key.
type rsaKey struct {
	D        string `json:"d"`
	DP       string `json:"dp"`
	DQ       string `json:"dq"`
	Exponent string `json:"exponent"`
	InverseQ string `json:"inverseQ"`
	Modulus  string `json:"modulus"`
	P        string `json:"p"`
	Q        string `json:"q"`
}

// jit is the encoded_jit_config of r: base64 of a JSON object that has the base64 content of each file.
func (g *GitHub) jit(r *registration) string {
	half := func() string { return g.random(128) }
	files := map[string]any{
		".runner": settings{
			AgentID: strconv.FormatInt(r.id, 10), AgentName: r.name, PoolID: "1", PoolName: "Default", Ephemeral: "True",
			ServerURL: "https://pipelinesghubeus1.actions.githubusercontent.com/sim/", ServerURLV2: "https://broker.actions.githubusercontent.com/",
			UseV2Flow: "True", WorkFolder: r.work,
		},
		".credentials": credentials{Scheme: "OAuth", Data: map[string]string{
			"ClientId":                "sim-" + strconv.FormatInt(r.id, 10),
			"AuthorizationUrl":        "https://pipelinesghubeus1.actions.githubusercontent.com/sim/_apis/oauth2/token",
			"RequireFipsCryptography": "True",
		}},
		".credentials_rsaparams": rsaKey{D: r.key, DP: half(), DQ: half(), Exponent: "AQAB", InverseQ: half(), Modulus: g.random(256), P: half(), Q: half()},
	}
	encoded := map[string]string{}
	for name, content := range files {
		b, err := json.Marshal(content)
		if err != nil {
			return ""
		}
		encoded[name] = base64.StdEncoding.EncodeToString(b)
	}
	b, err := json.Marshal(encoded)
	if err != nil {
		return ""
	}
	return base64.StdEncoding.EncodeToString(b)
}

// parseJIT reads what the listener reads: which runner it is and what proves it.
func parseJIT(jit string) (id int64, key string, err error) {
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(jit))
	if err != nil {
		return 0, "", fmt.Errorf("%w: %w", ErrBadConfig, err)
	}
	var files map[string][]byte // encoding/json takes base64 for bytes
	if err := json.Unmarshal(b, &files); err != nil {
		return 0, "", fmt.Errorf("%w: %w", ErrBadConfig, err)
	}
	var s settings
	if err := json.Unmarshal(files[".runner"], &s); err != nil {
		return 0, "", fmt.Errorf("%w: .runner: %w", ErrBadConfig, err)
	}
	var k rsaKey
	if err := json.Unmarshal(files[".credentials_rsaparams"], &k); err != nil {
		return 0, "", fmt.Errorf("%w: .credentials_rsaparams: %w", ErrBadConfig, err)
	}
	id, err = strconv.ParseInt(s.AgentID, 10, 64)
	if err != nil {
		return 0, "", fmt.Errorf("%w: AgentId: %w", ErrBadConfig, err)
	}
	return id, k.D, nil
}

func (r *registration) proves(key string) bool {
	return subtle.ConstantTimeCompare([]byte(r.key), []byte(key)) == 1
}
