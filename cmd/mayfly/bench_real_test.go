package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"mayfly/internal/fleet"
	receiver "mayfly/internal/github"
	"mayfly/internal/sim"
	"mayfly/internal/sim/github"
	"mayfly/internal/store"
)

// reactions are what a Mayfly in real time on loopback, with its database on disk, took to react.
type reactions struct {
	tally *tally
	// outside is from before GitHub's connect for a webhook until Proxmox's server has read the whole clone POST:
	// more than what the product measures of itself.
	outside []time.Duration
	slept   int // jobs that a wait at our own gates delayed; they are not in outside
}

// react lets n jobs come one by one, seldom enough for each to find room at once.
func react(t *testing.T, n int, every time.Duration, speed float64) reactions {
	dir := t.TempDir()
	var mu sync.Mutex
	sent, arrived := map[int64]time.Time{}, map[int]time.Time{} // by job, by VMID
	vmids := map[int64]fleet.Event{}
	var world *sim.World
	pve := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/clone") {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			now := time.Now()
			r.Body = io.NopCloser(bytes.NewReader(body))
			form, _ := url.ParseQuery(string(body)) // what is wrong with it is said by the handler
			id, _ := strconv.Atoi(form.Get("newid"))
			mu.Lock()
			arrived[id] = now
			mu.Unlock()
		}
		world.PVE.Handler().ServeHTTP(w, r)
	}))
	defer pve.Close()
	hub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { world.GitHub.Handler().ServeHTTP(w, r) }))
	defer hub.Close()
	hook := listenLoopback(t)
	place := simPlace{
		Speed: speed, Instance: "bench", Listen: "127.0.0.1:8080", WebhookListen: hook.Addr().String(), Proxmox: pve.URL, GitHub: hub.URL,
		Template: sim.Template, Labels: "self-hosted, windows, x64", Max: 100, Store: "mayfly.db",
	}
	if err := place.secrets(dir); err != nil {
		t.Fatal(err)
	}
	deliveries := &http.Client{Timeout: 10 * time.Second}
	world = sim.New(sim.Config{
		Seed: 1, Speed: speed, Nodes: 4, AuthorizedKey: place.AuthorizedKey,
		WebhookURL: "http://" + hook.Addr().String() + "/webhook", WebhookSecret: place.WebhookSecret,
		Deliver: func(r *http.Request) (*http.Response, error) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return nil, err
			}
			var in struct {
				Action string `json:"action"`
				Job    struct {
					ID int64 `json:"id"`
				} `json:"workflow_job"`
			}
			if err := json.Unmarshal(body, &in); err != nil {
				return nil, err
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			if in.Action == "queued" {
				mu.Lock()
				sent[in.Job.ID] = time.Now()
				mu.Unlock()
			}
			return deliveries.Do(r)
		},
	})
	defer world.Close()
	place.Nodes = world.Nodes
	path, err := place.write()
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := loadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	res := reactions{tally: &tally{}}
	a, err := build(t.Context(), cfg, outside{
		dial: world.Guests.Dial, hook: hook, count: res.tally.count,
		hear: []fleet.Hearer{res.tally.hear, func(e fleet.Event) {
			if e.Kind == fleet.CloneAsked {
				mu.Lock()
				vmids[e.Job] = e
				mu.Unlock()
			}
		}},
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- a.serve(ctx) }()
	defer func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if err := a.close(); err != nil {
			t.Error(err)
		}
	}()
	for a.control.Ready() != nil {
		pause(ctx, 10*time.Millisecond)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		world.GitHub.Submit(github.JobSpec{Repo: "octo-org/app", Name: fmt.Sprintf("build %d", i), Labels: []string{"self-hosted", "windows"}, Length: time.Minute})
		pause(ctx, every/2+time.Duration(rnd.Int64N(int64(every))))
	}
	for deadline := time.Now().Add(time.Minute); world.GitHub.Stats().Succeeded < n && time.Now().Before(deadline); {
		pause(ctx, 50*time.Millisecond)
	}
	if st := world.GitHub.Stats(); st.Succeeded != n || st.Killed != 0 {
		t.Errorf("of %d jobs: %+v", n, st)
	}
	mu.Lock()
	defer mu.Unlock()
	for job, e := range vmids {
		if e.Took == 0 || e.Waited > time.Millisecond || sent[job].IsZero() {
			res.slept++
			continue
		}
		res.outside = append(res.outside, arrived[e.VMID].Sub(sent[job]))
	}
	return res
}

func listenLoopback(t *testing.T) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// deliveries is how fast webhooks are taken: verified, and durable on disk before they are answered.
type deliveries struct {
	rate float64 // a second
	took []time.Duration
}

// deliver has senders bring n deliveries each, over connections of their own that stay open.
func deliver(t *testing.T, senders, n int) deliveries {
	s, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "mayfly.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	const secret = "It's a Secret to Everybody"
	l := listenLoopback(t)
	srv := &http.Server{Handler: receiver.NewWebhook([]fleet.Secret{secret}, s, func() {}, receiver.WebhookOptions{}), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(l) }() // ends with Close
	defer srv.Close()
	// Made before, so that the two cores are the receiver's as far as one process allows it.
	requests := make([][][]byte, senders)
	for i := range requests {
		for j := range n {
			requests[i] = append(requests[i], signedDelivery(secret, int64(1+i*n+j)))
		}
	}
	took := make([][]time.Duration, senders)
	var wg sync.WaitGroup
	began := time.Now()
	for i, mine := range requests {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer conn.Close()
			in := bufio.NewReader(conn)
			for _, req := range mine {
				at := time.Now()
				if _, err := conn.Write(req); err != nil {
					t.Error(err)
					return
				}
				resp, err := http.ReadResponse(in, nil)
				if err != nil || resp.StatusCode != http.StatusAccepted {
					t.Error(resp, err)
					return
				}
				_ = resp.Body.Close() // it is empty
				took[i] = append(took[i], time.Since(at))
			}
		})
	}
	wg.Wait()
	d := deliveries{rate: float64(senders*n) / time.Since(began).Seconds()}
	for _, t := range took {
		d.took = append(d.took, t...)
	}
	return d
}

// signedDelivery is a request as GitHub sends it, with about as many fields as we read.
func signedDelivery(secret string, id int64) []byte {
	body := fmt.Sprintf(`{"action":"queued","workflow_job":{"id":%d,"run_id":%d,"workflow_name":"ci","name":"build","status":"queued","conclusion":null,`+
		`"labels":["self-hosted","linux"],"runner_id":null,"runner_name":null,"created_at":%q,"padding":%q},"repository":{"id":1,"full_name":"octo-org/app"},"organization":{"login":"octo-org"}}`,
		id, id, time.Now().UTC().Format(time.RFC3339), strings.Repeat("x", 8<<10)) // real ones have about 10 KB
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	return fmt.Appendf(nil, "POST /webhook HTTP/1.1\r\nHost: mayfly\r\nContent-Type: application/json\r\nX-GitHub-Event: workflow_job\r\nX-GitHub-Delivery: %08x-0000-4000-8000-%012x\r\nX-Hub-Signature-256: sha256=%s\r\nContent-Length: %d\r\n\r\n%s",
		rand.Uint32(), id, hex.EncodeToString(mac.Sum(nil)), len(body), body)
}
