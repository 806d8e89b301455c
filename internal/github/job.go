package github

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"mayfly/internal/fleet"
)

// jobNeeds is the permission to see a job.
const jobNeeds = "classic token: repo; fine-grained token or App: repository permission Actions, read"

// Job looks one job up. What j holds beyond GitHub's knowledge stays; Checked is now.
// fleet.ErrGone: GitHub says 404, which proves nothing.
func (c *Client) Job(ctx context.Context, j fleet.Job) (fleet.Job, error) {
	found, err := c.job(ctx, j)
	if err != nil {
		return fleet.Job{}, fmt.Errorf("look up job %d of %s: %w", j.ID, bounded(j.Repo, maxText), err)
	}
	return found, nil
}

func (c *Client) job(ctx context.Context, j fleet.Job) (fleet.Job, error) {
	if !goodRepo(j.Repo) || j.ID <= 0 {
		return fleet.Job{}, fmt.Errorf("%w: no such repository or job can be asked for", fleet.ErrConfig)
	}
	asked := time.Now()
	a, err := c.do(ctx, request{call: "job", method: http.MethodGet, path: "/repos/" + j.Repo + "/actions/jobs/" + strconv.FormatInt(j.ID, 10)})
	switch {
	case err != nil:
		return fleet.Job{}, err
	case a.status == http.StatusNotFound:
		return fleet.Job{}, fmt.Errorf("%w: GitHub answered 404", fleet.ErrGone)
	case a.status != http.StatusOK:
		return fleet.Job{}, refusal(a, j.Repo, jobNeeds)
	}
	var in workflowJob
	if err := json.Unmarshal(a.body, &in); err != nil {
		return fleet.Job{}, fmt.Errorf("decode a job: %w", err)
	}
	found, err := in.job(j.Repo, "")
	if err != nil {
		return fleet.Job{}, err
	}
	if found.ID != j.ID {
		return fleet.Job{}, fmt.Errorf("GitHub answered with job %d", found.ID)
	}
	found.Received, found.Changed, found.Checked = j.Received, j.Changed, asked
	return found, nil
}
