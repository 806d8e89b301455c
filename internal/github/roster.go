package github

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"mayfly/internal/fleet"
)

const (
	pageSize = 100
	// maxPages is room for 20,000 runners; a runner group holds 10,000.
	maxPages = 200
)

// Roster lists all registrations of our scope: complete as far as GitHub's pages allow,
// or an error. Runners come and go between two pages, which shifts rows over a page's
// edge; if the count moved, the list is read a second time and the two are joined, so a
// row may be there that is gone by now.
func (c *Client) Roster(ctx context.Context) (fleet.Roster, error) {
	r, err := c.roster(ctx)
	if err != nil {
		return fleet.Roster{}, fmt.Errorf("list the runners of %s: %w", c.scope.page, err)
	}
	return r, nil
}

func (c *Client) roster(ctx context.Context) (fleet.Roster, error) {
	out := fleet.Roster{AsOf: time.Now()}
	rows := map[int64]int{} // id → index in out.Runners
	collect := func() (total int, steady bool, err error) {
		steady = true
		for p, err := range c.pages(ctx) {
			if err != nil {
				return 0, false, err
			}
			steady = steady && (total == 0 || total == p.Total)
			total = p.Total
			for _, r := range p.Runners {
				reg := fleet.Registration{ID: r.ID, Name: r.Name, Online: r.Status == "online", Busy: r.Busy}
				if i, seen := rows[r.ID]; seen {
					out.Runners[i] = reg
					continue
				}
				rows[r.ID] = len(out.Runners)
				out.Runners = append(out.Runners, reg)
			}
		}
		return total, steady && len(rows) == total, nil
	}
	total, steady, err := collect()
	if err == nil && !steady {
		total, _, err = collect()
	}
	if err != nil {
		return fleet.Roster{}, err
	}
	if len(rows) < total {
		return fleet.Roster{}, fmt.Errorf("GitHub counts %d runners and lists %d", total, len(rows))
	}
	return out, nil
}

// A page of runners.
type page struct {
	Total   int `json:"total_count"`
	Runners []struct {
		ID     int64  `json:"id"`
		Name   string `json:"name"`
		Status string `json:"status"`
		Busy   bool   `json:"busy"`
	} `json:"runners"`
}

// pages yields the pages of the complete list, by the Link header as GitHub asks.
func (c *Client) pages(ctx context.Context) func(yield func(page, error) bool) {
	return func(yield func(page, error) bool) {
		q := request{call: "roster", method: http.MethodGet, path: c.scope.runners, query: url.Values{"per_page": {strconv.Itoa(pageSize)}}}
		for range maxPages {
			p, next, err := c.page(ctx, q)
			if !yield(p, err) || err != nil || next == "" {
				return
			}
			q = request{call: q.call, method: q.method, url: next}
		}
		yield(page{}, fmt.Errorf("GitHub's list does not end after %d pages", maxPages))
	}
}

func (c *Client) page(ctx context.Context, q request) (p page, next string, err error) {
	a, err := c.do(ctx, q)
	if err != nil {
		return page{}, "", err
	}
	if a.status != http.StatusOK {
		return page{}, "", c.refusal(a)
	}
	var in struct {
		Total   *int             `json:"total_count"`
		Runners *json.RawMessage `json:"runners"`
	}
	if err := json.Unmarshal(a.body, &in); err != nil {
		return page{}, "", fmt.Errorf("decode a list of runners: %w", err)
	}
	if in.Total == nil || in.Runners == nil {
		return page{}, "", errors.New("decode a list of runners: it has no total_count or no runners")
	}
	if err := json.Unmarshal(a.body, &p); err != nil {
		return page{}, "", fmt.Errorf("decode a list of runners: %w", err)
	}
	next, err = c.next(a.header)
	return p, next, err
}

// next is the URL of the page that follows; "" after the last. It must be our API: the
// token goes there.
func (c *Client) next(h http.Header) (string, error) {
	for _, line := range h.Values("Link") {
		for link := range strings.SplitSeq(line, ",") {
			target, params, ok := strings.Cut(strings.TrimSpace(link), ">")
			if !ok || !strings.HasPrefix(target, "<") || !strings.Contains(params, `rel="next"`) {
				continue
			}
			u, err := c.scope.api.Parse(target[1:])
			if err != nil {
				return "", fmt.Errorf("read the Link header: %w", err)
			}
			if u.Scheme != c.scope.api.Scheme || u.Host != c.scope.api.Host {
				return "", fmt.Errorf("the Link header points to another host, %s", bounded(u.Host, maxMessage))
			}
			return u.String(), nil
		}
	}
	return "", nil
}
