package github

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"mayfly/internal/fleet"
)

// Remove takes a registration back; id 0 looks it up by name.
//
// fleet.Removed: it was not busy and is gone. fleet.Working: it is in a job; ask again only
// much later, a dead runner's lock lasts about ten minutes. fleet.Absent: it is not there,
// proved by lists fetched after GitHub said so. Anything less is an error, as a 404 may
// also mean that the token may not see it. Again: Absent.
func (c *Client) Remove(ctx context.Context, id int64, name string) (fleet.Removal, error) {
	removal, err := c.remove(ctx, id, name)
	if err != nil {
		return "", fmt.Errorf("remove runner %s (id %d): %w", name, id, err)
	}
	return removal, nil
}

func (c *Client) remove(ctx context.Context, id int64, name string) (fleet.Removal, error) {
	if id == 0 && name == "" {
		return "", errors.New("neither an id nor a name is given")
	}
	if id == 0 {
		found, err := c.lookup(ctx, name)
		if err != nil {
			return "", err
		}
		if found == 0 {
			return c.absent(ctx, 0, name)
		}
		id = found
	}
	a, err := c.do(ctx, request{call: "remove", method: http.MethodDelete, path: c.scope.runners + "/" + strconv.FormatInt(id, 10)})
	switch {
	case err != nil:
		return "", err
	case a.status == http.StatusNoContent:
		return fleet.Removed, nil
	case a.status == http.StatusUnprocessableEntity:
		return fleet.Working, nil
	case a.status == http.StatusNotFound:
		return c.absent(ctx, id, name)
	}
	return "", c.refusal(a)
}

// absent proves that neither the id nor the name is registered: by the complete list, and
// by asking for the name, which is one page, so that no row can slip between two.
func (c *Client) absent(ctx context.Context, id int64, name string) (fleet.Removal, error) {
	r, err := c.roster(ctx)
	if err != nil {
		return "", fmt.Errorf("it seems not to exist; list the runners to prove it: %w", err)
	}
	for _, reg := range r.Runners {
		switch {
		case id != 0 && reg.ID == id:
			return "", fmt.Errorf("%w: GitHub answers 404 to the delete and lists the runner: the token may see it and not remove it (%s)",
				fleet.ErrConfig, c.scope.needs)
		case name != "" && reg.Name == name:
			return "", fmt.Errorf("the name is registered with another id, %d: ask again", reg.ID)
		}
	}
	if name == "" {
		return fleet.Absent, nil
	}
	found, err := c.lookup(ctx, name)
	if err != nil {
		return "", fmt.Errorf("it seems not to exist; ask for its name to prove it: %w", err)
	}
	if found != 0 {
		return "", fmt.Errorf("the name is registered with id %d: ask again", found)
	}
	return fleet.Absent, nil
}

// lookup finds the id of the registration of that name; 0: there is none.
func (c *Client) lookup(ctx context.Context, name string) (int64, error) {
	p, next, err := c.page(ctx, request{
		call: "lookup", method: http.MethodGet, path: c.scope.runners, query: url.Values{"name": {name}, "per_page": {strconv.Itoa(pageSize)}},
	})
	if err != nil {
		return 0, fmt.Errorf("look up runner %s: %w", name, err)
	}
	for _, r := range p.Runners {
		if r.Name == name && r.ID > 0 {
			return r.ID, nil
		}
	}
	if next != "" || len(p.Runners) < p.Total {
		return 0, fmt.Errorf("look up runner %s: GitHub counts %d and lists %d", name, p.Total, len(p.Runners))
	}
	return 0, nil
}
