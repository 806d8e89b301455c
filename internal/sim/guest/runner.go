package guest

import (
	"context"
	"errors"
	"time"

	"mayfly/internal/guest/wire"
)

// take begins the order in the background, detached from whoever brought it; fresh is false when it
// had begun before. Another order than the one that it has is refused.
func (g *Guest) take(o wire.Order) (fresh bool, code int) {
	g.mu.Lock()
	switch {
	case g.state.Phase != wire.PhaseNone && g.state.ID == o.ID:
		g.mu.Unlock()
		return false, wire.ExitOK
	case g.state.Phase != wire.PhaseNone:
		g.mu.Unlock()
		return false, wire.ExitOtherOrder
	case o.Mode != wire.ModeJIT:
		g.mu.Unlock()
		return false, wire.ExitTokenRejected
	}
	g.state.ID = o.ID
	g.setPhase(wire.PhaseStarting)
	g.mu.Unlock()
	g.farm.spawn(func() { g.work(o) })
	return true, wire.ExitOK
}

// listening waits until the runner listens, or has ended before it did; then code says why.
func (g *Guest) listening(ctx context.Context) (code int) {
	for {
		g.mu.Lock()
		phase, code, changed := g.state.Phase, g.startCode, g.stateNew
		g.mu.Unlock()
		switch {
		case code != wire.ExitOK:
			return code
		case phase != wire.PhaseStarting:
			return wire.ExitOK
		}
		select {
		case <-changed:
		case <-ctx.Done(): // the connection is lost; nobody reads the code
			return wire.ExitError
		}
	}
}

// work is the runner from its start to the guest's power-off.
func (g *Guest) work(o wire.Order) {
	ctx := g.os
	if o.Deadline > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(o.Deadline)*time.Second)
		defer cancel()
	}
	result, exit, code := g.runner(ctx, o)
	if result == "" && ctx.Err() != nil && g.os.Err() == nil {
		g.lose()
		result, exit, code = "", wire.ExitDeadline, wire.ExitDeadline
	}
	g.advance(func() {
		if g.state.Phase == wire.PhaseStarting {
			g.startCode = code
		}
		g.state.Result, g.state.Exit = result, exit
		g.setPhase(wire.PhaseEnded)
	})
	if o.PowerOff && g.sleep(g.plan.powerOff) && g.powerOff != nil {
		g.powerOff()
	}
}

// runner is Runner.Listener: its job's result, its exit code, and the helper's exit code if it never listened
// (exit codes of runner 2.336.0, Constants.cs and TaskResultUtil).
func (g *Guest) runner(ctx context.Context, o wire.Order) (result string, exit, code int) {
	if !sleep(ctx, g.plan.register) {
		return "", 1, wire.ExitRunnerEnded
	}
	if g.plan.runnerFail {
		return "", g.farm.cfg.Faults.RunnerExit, startCode(g.farm.cfg.Faults.RunnerExit)
	}
	if g.farm.cfg.Hub == nil {
		return "", 1, wire.ExitJITRejected
	}
	session, err := g.farm.cfg.Hub.Connect(o.JIT)
	switch {
	case errors.Is(err, ErrConflict):
		return "", 5, startCode(5)
	case err != nil:
		return "", 1, startCode(1)
	}
	alive := false
	g.advance(func() {
		alive = true
		g.session = session
		g.setPhase(wire.PhaseListening)
	})
	if !alive {
		session.Lost()
		return "", 1, wire.ExitRunnerEnded
	}
	job, err := session.Next(ctx)
	if err != nil {
		if ctx.Err() == nil {
			g.disconnect() // the registration is gone, and the session with it: exit 0, and no job
		}
		return "", 0, wire.ExitRunnerEnded
	}
	g.advance(func() { g.setPhase(wire.PhaseBusy) })
	conclusion := job.Conclusion
	t := time.NewTimer(time.Duration(float64(job.Length) / g.farm.cfg.Speed))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return "", 1, wire.ExitRunnerEnded
	case <-job.Cancelled:
		conclusion = "cancelled"
	case <-t.C:
	}
	if s := g.disconnect(); s != nil && g.os.Err() == nil {
		s.Done(job.ID, conclusion)
	} else if s != nil {
		s.Lost()
	}
	result, exit = resultOf(conclusion)
	return result, exit, wire.ExitOK
}

// disconnect takes the session, so that one only ends it.
func (g *Guest) disconnect() Session {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.session
	g.session = nil
	return s
}

// lose ends the session, if there is one, as a machine does that died.
func (g *Guest) lose() {
	if s := g.disconnect(); s != nil {
		s.Lost()
	}
}

func (g *Guest) setPhase(p wire.Phase) {
	g.state.Phase = p
	close(g.stateNew)
	g.stateNew = make(chan struct{})
}

// startCode is what the helper makes of a Runner.Listener that ends before it listens.
func startCode(exit int) int {
	switch exit {
	case 1:
		return wire.ExitJITRejected
	case 5:
		return wire.ExitSessionConflict
	case 7:
		return wire.ExitVersionDeprecated
	}
	return wire.ExitRunnerEnded
}

// resultOf is a conclusion in the runner's words, with the exit code that stands for it.
func resultOf(conclusion string) (result string, exit int) {
	switch conclusion {
	case "success":
		return "succeeded", 100
	case "cancelled":
		return "canceled", 103
	case "skipped":
		return "skipped", 104
	}
	return "failed", 102
}
