package store

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"mayfly/internal/fleet"
)

const (
	runnerColumns = `name, pool, node, vmid, template, phase, since, born, asked_at, upid, cloned_at, mac, started_at,
		address, host_key, registration, runner_id, job, adopted, cause`

	insertRunner = `INSERT INTO runners (` + runnerColumns + `) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

	updateRunner = `UPDATE runners SET (` + runnerColumns + `) = (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) WHERE name = ?`
)

func runnerArgs(r fleet.Runner) []any {
	return []any{
		r.Name, r.Pool, r.Node, r.VMID, r.Template, string(r.Phase), nanos(r.Since), nanos(r.Born), nanos(r.AskedAt), r.UPID,
		nanos(r.ClonedAt), r.MAC, nanos(r.StartedAt), r.Address, r.HostKey, r.Registration, r.RunnerID, r.Job, r.Adopted, r.Cause,
	}
}

// Create stores new rows and the VMID given out last, all or none: that is the one of the last row that
// was not adopted, for an adopted VM brought its own. fleet.ErrTaken: a name or VMID is in use by a row.
func (s *Store) Create(ctx context.Context, rows []fleet.Runner, ev ...fleet.Event) error {
	for _, r := range rows {
		if err := checkRunner(r); err != nil {
			return fmt.Errorf("storing a new runner: %w", err)
		}
	}
	return s.do(ctx, func(t *tx) error {
		last := 0
		for _, r := range rows {
			t.touchRunner(r.Name)
			if err := t.exec(insertRunner, runnerArgs(r)...); isTaken(err) {
				return fmt.Errorf("storing runner %s (VMID %d on %s): another row has its name or VMID: %w", r.Name, r.VMID, r.Node, fleet.ErrTaken)
			} else if err != nil {
				return fmt.Errorf("storing runner %s (VMID %d on %s): %w", r.Name, r.VMID, r.Node, err)
			}
			if !r.Adopted {
				last = r.VMID
			}
		}
		if last != 0 {
			if err := t.setMeta(metaLastVMID, strconv.Itoa(last)); err != nil {
				return fmt.Errorf("storing the last VMID %d: %w", last, err)
			}
		}
		return t.tell(ev)
	})
}

// Update stores the row as it is now. fleet.ErrGone: it has ended. That its phase goes back or that it
// takes another VMID is an error without a class.
func (s *Store) Update(ctx context.Context, r fleet.Runner, ev ...fleet.Event) error {
	if err := checkRunner(r); err != nil {
		return fmt.Errorf("storing a runner: %w", err)
	}
	return s.do(ctx, func(t *tx) error {
		if err := t.updateRunner(r); err != nil {
			return fmt.Errorf("storing runner %s (VMID %d on %s): %w", r.Name, r.VMID, r.Node, err)
		}
		return t.tell(ev)
	})
}

func (t *tx) updateRunner(r fleet.Runner) error {
	var phase fleet.Phase
	var vmid int
	found, err := t.scan(`SELECT phase, vmid FROM runners WHERE name = ?`, []any{r.Name}, []any{&phase, &vmid})
	switch {
	case err != nil:
		return err
	case !found:
		return fmt.Errorf("its row has ended: %w", fleet.ErrGone)
	case r.Phase.Before(phase):
		return fmt.Errorf("it is %s and cannot go back to %s", phase, r.Phase)
	case r.VMID != vmid:
		return fmt.Errorf("its VMID is %d for life", vmid)
	}
	t.touchRunner(r.Name)
	return t.exec(updateRunner, append(runnerArgs(r), r.Name)...)
}

// End removes the row; its events stay. For a row that has ended already it only stores the events.
func (s *Store) End(ctx context.Context, name string, ev ...fleet.Event) error {
	return s.do(ctx, func(t *tx) error {
		t.touchRunner(name)
		if err := t.exec(`DELETE FROM runners WHERE name = ?`, name); err != nil {
			return fmt.Errorf("ending the row of runner %s: %w", name, err)
		}
		return t.tell(ev)
	})
}

func checkRunner(r fleet.Runner) error {
	switch {
	case r.Name == "":
		return fmt.Errorf("the one with VMID %d on %s has no name", r.VMID, r.Node)
	case r.VMID <= 0:
		return fmt.Errorf("%s has no VMID", r.Name)
	case !slices.Contains(fleet.Phases(), r.Phase):
		return fmt.Errorf("%s (VMID %d) is in no phase: %q", r.Name, r.VMID, r.Phase)
	}
	return nil
}
