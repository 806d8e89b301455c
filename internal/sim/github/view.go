package github

import (
	"fmt"
	"strings"
	"time"
)

// base is where the answers of the simulated API say that they come from.
const base = "https://api.github.com"

// jobView is workflow_job in a webhook, and a job in REST.
type jobView struct {
	ID              int64      `json:"id"`
	RunID           int64      `json:"run_id"`
	RunURL          string     `json:"run_url"`
	RunAttempt      int        `json:"run_attempt"`
	NodeID          string     `json:"node_id"`
	HeadSHA         string     `json:"head_sha"`
	HeadBranch      string     `json:"head_branch"`
	URL             string     `json:"url"`
	HTMLURL         string     `json:"html_url"`
	Status          string     `json:"status"`
	Conclusion      *string    `json:"conclusion"`
	CreatedAt       time.Time  `json:"created_at"`
	StartedAt       time.Time  `json:"started_at"`
	CompletedAt     *time.Time `json:"completed_at"`
	Name            string     `json:"name"`
	Steps           []stepView `json:"steps"`
	CheckRunURL     string     `json:"check_run_url"`
	Labels          []string   `json:"labels"`
	RunnerID        *int64     `json:"runner_id"`
	RunnerName      *string    `json:"runner_name"`
	RunnerGroupID   *int64     `json:"runner_group_id"`
	RunnerGroupName *string    `json:"runner_group_name"`
	WorkflowName    string     `json:"workflow_name"`
}

type stepView struct {
	Name        string     `json:"name"`
	Status      string     `json:"status"`
	Conclusion  *string    `json:"conclusion"`
	Number      int        `json:"number"`
	StartedAt   time.Time  `json:"started_at"`
	CompletedAt *time.Time `json:"completed_at"`
}

func (g *GitHub) viewJob(j *job) jobView {
	repo := base + "/repos/" + j.spec.Repo
	v := jobView{
		ID: j.id, RunID: j.run, RunAttempt: 1, NodeID: fmt.Sprintf("CR_%d", j.id), Name: j.spec.Name, WorkflowName: "CI",
		HeadSHA: "3484a3fb816e0859fd6e1cea078d76385ff50625", HeadBranch: "main", Status: j.status,
		RunURL: fmt.Sprintf("%s/actions/runs/%d", repo, j.run), URL: fmt.Sprintf("%s/actions/jobs/%d", repo, j.id),
		HTMLURL:     fmt.Sprintf("https://github.com/%s/actions/runs/%d/job/%d", j.spec.Repo, j.run, j.id),
		CheckRunURL: fmt.Sprintf("%s/check-runs/%d", repo, j.id),
		CreatedAt:   j.created.Truncate(time.Second), StartedAt: j.created.Truncate(time.Second), // set from the start: it is no sign of one
		Labels: append([]string{}, j.spec.Labels...), Steps: []stepView{},
	}
	if j.status == "queued" || j.status == "waiting" {
		return v
	}
	v.StartedAt = j.started.Truncate(time.Second)
	var id, group int64
	var name, groupName string
	if r := j.runner; r != nil {
		id, name, group, groupName = r.id, r.name, r.group, "Default"
		v.Steps = append(v.Steps, stepView{Name: "Set up job", Status: "in_progress", Number: 1, StartedAt: v.StartedAt})
	}
	// 0 and "" are what a job that was cancelled in the queue really shows.
	v.RunnerID, v.RunnerName, v.RunnerGroupID, v.RunnerGroupName = &id, &name, &group, &groupName
	if j.status == "completed" {
		conclusion, completed := j.conclusion, j.completed.Truncate(time.Second)
		v.Conclusion, v.CompletedAt = &conclusion, &completed
		if len(v.Steps) > 0 {
			v.Steps[0].Status, v.Steps[0].Conclusion, v.Steps[0].CompletedAt = "completed", &conclusion, &completed
		}
	}
	return v
}

// payload is the body of a workflow_job delivery.
func (g *GitHub) payload(v jobView, repo, action string) map[string]any {
	owner, name, _ := strings.Cut(repo, "/")
	p := map[string]any{
		"action":       action,
		"workflow_job": v,
		"repository": map[string]any{
			"id": 186853002, "node_id": "MDEwOlJlcG9zaXRvcnkxODY4NTMwMDI=", "name": name, "full_name": repo, "private": true,
			"owner":    map[string]any{"login": owner, "id": 38302899, "type": "Organization"},
			"html_url": "https://github.com/" + repo, "url": base + "/repos/" + repo, "default_branch": "main", "visibility": "private",
		},
		"sender": map[string]any{"login": "octocat", "id": 583231, "type": "User"},
	}
	if !isRepo(g.cfg.Scope) {
		p["organization"] = map[string]any{"login": owner, "id": 38302899}
	}
	return p
}

// runnerView is a runner in REST.
type runnerView struct {
	ID        int64       `json:"id"`
	Group     int64       `json:"runner_group_id"`
	Name      string      `json:"name"`
	OS        string      `json:"os"`
	Status    string      `json:"status"`
	Busy      bool        `json:"busy"`
	Ephemeral bool        `json:"ephemeral"`
	Labels    []labelView `json:"labels"`
	Version   *string     `json:"version"` // null until a runner has connected once
}

type labelView struct {
	ID   int64  `json:"id"`
	Name string `json:"name"`
	Type string `json:"type"`
}

func (g *GitHub) viewRunner(r *registration) runnerView {
	v := runnerView{ID: r.id, Group: r.group, Name: r.name, OS: "unknown", Status: "offline", Busy: r.job != nil, Ephemeral: true, Labels: []labelView{}}
	if r.met {
		version := "2.337.0"
		v.OS, v.Version = "Windows", &version
	}
	if r.online {
		v.Status = "online"
	}
	for _, l := range r.labels {
		id := g.labelIDs[l]
		if id == 0 {
			id = int64(len(g.labelIDs)) + 1
			g.labelIDs[l] = id
		}
		kind := "custom"
		switch strings.ToLower(l) {
		case "self-hosted", "windows", "linux", "macos", "x64", "x86", "arm", "arm64":
			kind = "read-only"
		}
		v.Labels = append(v.Labels, labelView{ID: id, Name: l, Type: kind})
	}
	return v
}
