package github

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"mayfly/internal/fleet"
)

// Register makes a registration of that name with the pool's labels, complete as they
// stand: generate-jitconfig adds none. It waits at our own pace first (see Throttled).
//
// It is not repeatable. fleet.ErrTaken: the name exists, perhaps by an earlier call whose
// answer was lost. fleet.ErrUnknown: it may exist now: GitHub has been seen to fail a call
// and register nevertheless. fleet.ErrConfig: it does not, and will not.
func (c *Client) Register(ctx context.Context, name string, p fleet.Pool) (fleet.Permit, error) {
	permit, err := c.register(ctx, name, p)
	if err != nil {
		return fleet.Permit{}, fmt.Errorf("register runner %s of pool %s: %w", name, p.Name, err)
	}
	return permit, nil
}

func (c *Client) register(ctx context.Context, name string, p fleet.Pool) (fleet.Permit, error) {
	// GitHub's limit first: a token drawn for a request that may not be sent is wasted.
	if err := c.gate.pass(ctx); err != nil {
		return fleet.Permit{}, err
	}
	if err := c.bucket.draw(ctx); err != nil {
		return fleet.Permit{}, err
	}
	type order struct {
		Name   string   `json:"name"`
		Group  int64    `json:"runner_group_id"`
		Labels []string `json:"labels"`
		Work   string   `json:"work_folder"`
	}
	a, err := c.do(ctx, request{
		call: "register", method: http.MethodPost, path: c.scope.runners + "/generate-jitconfig",
		body: order{Name: name, Group: c.group, Labels: p.Labels, Work: c.work},
	})
	switch {
	case errors.Is(err, errUnsent):
		return fleet.Permit{}, err
	case err != nil:
		return fleet.Permit{}, fmt.Errorf("%w: %w", fleet.ErrUnknown, err)
	}
	switch {
	case a.status == http.StatusCreated:
		return permitOf(a, name)
	case a.status == http.StatusConflict:
		return fleet.Permit{}, fmt.Errorf("%w: GitHub has a runner of that name", fleet.ErrTaken)
	case a.status == http.StatusUnprocessableEntity, a.status == http.StatusBadRequest:
		return fleet.Permit{}, fmt.Errorf("%w: GitHub refuses the name, the labels (1 to 100 of 256 characters) or the runner group %d: %q",
			fleet.ErrConfig, c.group, a.message())
	case a.status >= 500, a.status < 300:
		return fleet.Permit{}, fmt.Errorf("%w: %w", fleet.ErrUnknown, c.refusal(a))
	}
	return fleet.Permit{}, c.refusal(a)
}

// permitOf reads the answer to a registration. Its body is a secret: no error quotes it.
func permitOf(a reply, name string) (fleet.Permit, error) {
	var in struct {
		Runner struct {
			ID   int64  `json:"id"`
			Name string `json:"name"`
		} `json:"runner"`
		JIT string `json:"encoded_jit_config"`
	}
	if json.Unmarshal(a.body, &in) != nil || in.Runner.ID <= 0 || in.JIT == "" {
		return fleet.Permit{}, fmt.Errorf("%w: GitHub answered 201 without a whole registration", fleet.ErrUnknown)
	}
	if in.Runner.Name != name {
		return fleet.Permit{}, fmt.Errorf("%w: GitHub answered 201 with another runner's name", fleet.ErrUnknown)
	}
	return fleet.Permit{ID: in.Runner.ID, Name: name, Secret: fleet.Secret(in.JIT), Sent: a.sent}, nil
}
