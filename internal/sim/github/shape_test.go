package github_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/fleet"
	"mayfly/internal/sim/github"
)

// contract reads a file of what GitHub really sends, which lies beside the checkout.
func contract(t *testing.T, name string, into any) {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		b, err := os.ReadFile(filepath.Join(dir, "shared", "contract", "github", name))
		if err == nil {
			if err := json.Unmarshal(b, into); err != nil {
				t.Fatal(err)
			}
			return
		}
		if filepath.Dir(dir) == dir {
			t.Skipf("no file shared/contract/github/%s in any folder above: the shape is not tested", name)
		}
		dir = filepath.Dir(dir)
	}
}

// kind is a JSON value's type, as a schema names it.
func kind(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case float64:
		return "integer"
	case string:
		return "string"
	case []any:
		return "array"
	}
	return "object"
}

func TestPayloadsHaveTheRecordedShape(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bodies []map[string]any
		g := github.New(github.Config{
			Scope: "octo-org", WebhookURL: "http://127.0.0.1/webhook", Senders: 1,
			Deliver: func(r *http.Request) (*http.Response, error) {
				var body map[string]any
				if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
					t.Error(err)
				}
				bodies = append(bodies, body)
				return &http.Response{StatusCode: 202, Body: io.NopCloser(http.NoBody)}, nil
			},
		})
		defer g.Close()
		rest := httptest.NewTestServer(t, g.Handler())
		answer, err := rest.Client().Post("http://127.0.0.1/orgs/octo-org/actions/runners/generate-jitconfig", "application/json",
			strings.NewReader(`{"name":"m1-win-0a1b2c3d","runner_group_id":1,"labels":["windows"]}`))
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		var made struct {
			JIT string `json:"encoded_jit_config"`
		}
		if err := json.NewDecoder(answer.Body).Decode(&made); err != nil {
			t.Fatal(err)
		}
		held := g.Submit(github.JobSpec{Labels: []string{"linux"}, Held: time.Minute})
		synctest.Sleep(2 * time.Minute)
		g.Cancel(held)
		g.Submit(github.JobSpec{Labels: []string{"windows"}})
		g.CheckRun("octo-org/app", "Test results")
		s, err := g.Connect(made.JIT)
		if err != nil {
			t.Fatal(err)
		}
		j, err := s.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Done(j.ID, "success"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		// Of each situation a delivery of ours and a recorded one.
		for i, name := range []string{
			"", "08.waiting", "09.queued_after_waiting", "04.completed.cancelled_before_assignment",
			"01.queued", "06.completed.check_run_noise", "02.in_progress", "03.completed.success",
		} {
			if name == "" {
				if w := bodies[i]["workflow_job"].(map[string]any); bodies[i]["action"] != "queued" || w["status"] != "waiting" {
					t.Errorf("the first event of a held job: action %v, status %v", bodies[i]["action"], w["status"])
				}
				continue
			}
			var real map[string]any
			contract(t, "payloads-derived/"+name+".json", &real)
			ours := slices.IndexFunc(bodies, func(b map[string]any) bool {
				w, r := b["workflow_job"].(map[string]any), real["workflow_job"].(map[string]any)
				return b["action"] == real["action"] && w["status"] == r["status"] && w["conclusion"] == r["conclusion"] && kind(w["runner_id"]) == kind(r["runner_id"]) &&
					(w["runner_id"] == 0.0) == (r["runner_id"] == 0.0)
			})
			if ours < 0 {
				t.Errorf("no delivery is like %s", name)
				continue
			}
			for key, want := range real["workflow_job"].(map[string]any) {
				got, ok := bodies[ours]["workflow_job"].(map[string]any)[key]
				if !ok || kind(got) != kind(want) {
					t.Errorf("%s: workflow_job.%s is %s, recorded is %s", name, key, kind(got), kind(want))
				}
			}
			for _, key := range []string{"action", "workflow_job", "repository", "sender"} {
				if kind(bodies[ours][key]) != kind(real[key]) {
					t.Errorf("%s: %s is %s", name, key, kind(bodies[ours][key]))
				}
			}
		}
	})
}

// TestAnswersFollowTheDescription holds every kind of answer against GitHub's own OpenAPI
// description: required members, types and enumerations.
func TestAnswersFollowTheDescription(t *testing.T) {
	var api map[string]any
	contract(t, "github-openapi-reduced.deref.json", &api)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, github.Config{})
		permit := w.register("m1-win-00000001")
		id := w.Submit(github.JobSpec{Labels: []string{"windows"}, Length: time.Hour})
		rest := httptest.NewTestServer(t, w.Handler())
		ask := func(method, path, body string) (int, any) {
			req, err := http.NewRequestWithContext(t.Context(), method, "http://127.0.0.1"+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "token ghp_token")
			answer, err := rest.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			var out any
			if err := json.NewDecoder(answer.Body).Decode(&out); err != nil {
				t.Errorf("%s %s: %v", method, path, err)
			}
			return answer.StatusCode, out
		}
		check := func(method, template, path, body string) {
			t.Helper()
			status, got := ask(method, path, body)
			schema := at(api, "paths", template, strings.ToLower(method), "responses", fmt.Sprint(status), "content", "application/json", "schema")
			if schema == nil {
				t.Errorf("%s %s: no description of a %d", method, template, status)
				return
			}
			for _, fault := range faults(schema, got, method+" "+template) {
				t.Error(fault)
			}
		}
		const runners = "/orgs/octo-org/actions/runners"
		check("POST", "/orgs/{org}/actions/runners/generate-jitconfig", runners+"/generate-jitconfig", `{"name":"x","runner_group_id":1,"labels":["linux"]}`)
		check("POST", "/orgs/{org}/actions/runners/generate-jitconfig", runners+"/generate-jitconfig", `{"name":"x","runner_group_id":1,"labels":["linux"]}`)
		check("POST", "/orgs/{org}/actions/runners/registration-token", runners+"/registration-token", "")
		check("GET", "/orgs/{org}/actions/runners", runners, "")
		check("GET", "/orgs/{org}/actions/runners/{runner_id}", fmt.Sprintf("%s/%d", runners, permit.ID), "")
		job := fmt.Sprintf("/repos/octo-org/app/actions/jobs/%d", id)
		check("GET", "/repos/{owner}/{repo}/actions/jobs/{job_id}", job, "")
		go w.run(permit)
		synctest.Sleep(time.Minute)
		w.ledger.want(t, id, fleet.Job{Status: fleet.StatusInProgress, Runner: permit.Name, RunnerID: permit.ID})
		check("GET", "/orgs/{org}/actions/runners", runners, "")
		check("GET", "/repos/{owner}/{repo}/actions/jobs/{job_id}", job, "")
		synctest.Sleep(time.Hour)
		check("GET", "/repos/{owner}/{repo}/actions/jobs/{job_id}", job, "")
	})
}

func at(v any, keys ...string) any {
	for _, k := range keys {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[k]
	}
	return v
}

// faults is what of got the schema does not allow. It knows what the description uses of
// JSON Schema: type, nullable, enum, required, properties, items, allOf, anyOf, oneOf.
func faults(schema, got any, where string) []string {
	s, ok := schema.(map[string]any)
	if !ok {
		return nil
	}
	if got == nil {
		if s["nullable"] == true || s["type"] == nil {
			return nil
		}
		return []string{where + " is null"}
	}
	var out []string
	if want, _ := s["type"].(string); want != "" && want != kind(got) && (want != "number" || kind(got) != "integer") {
		return []string{fmt.Sprintf("%s is %s, want %s", where, kind(got), want)}
	}
	if enum, ok := s["enum"].([]any); ok && !slices.Contains(enum, got) {
		out = append(out, fmt.Sprintf("%s is %v, want one of %v", where, got, enum))
	}
	for _, all := range list(s["allOf"]) {
		out = append(out, faults(all, got, where)...)
	}
	for _, key := range []string{"anyOf", "oneOf"} {
		if variants := list(s[key]); len(variants) > 0 && !slices.ContainsFunc(variants, func(a any) bool { return len(faults(a, got, where)) == 0 }) {
			out = append(out, where+" is none of "+key)
		}
	}
	if object, ok := got.(map[string]any); ok {
		for _, name := range list(s["required"]) {
			if _, ok := object[name.(string)]; !ok {
				out = append(out, fmt.Sprintf("%s has no %s", where, name))
			}
		}
		for name, v := range object {
			out = append(out, faults(at(s, "properties", name), v, where+"."+name)...)
		}
	}
	if array, ok := got.([]any); ok {
		for i, v := range array {
			out = append(out, faults(s["items"], v, fmt.Sprintf("%s[%d]", where, i))...)
		}
	}
	return out
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}
