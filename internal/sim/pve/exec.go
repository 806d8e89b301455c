package pve

// An Executor is a Guest whose agent runs programs. A Guest that is none has no program to run.
type Executor interface {
	// Exec starts a program; ok is false if there is no such program.
	Exec(argv []string, input string) (pid int, ok bool)
	// ExecStatus is the state of a process that Exec started; ok is false if the agent knows no such
	// pid. The agent tells the end of a process once and then forgets it.
	ExecStatus(pid int) (e Execution, ok bool)
}

// An Execution is what the agent tells of a process.
type Execution struct {
	Exited   bool
	Code     int
	Out, Err string // complete, only once it has exited
}

// agentExec starts a program. A missing one ends as 596: the agent's error text holds curly quotes, at
// which pvedaemon dies while it writes the status line (captured on 8.4 and 9.2).
func (c *Cluster) agentExec(r *request) (any, *apiError) {
	return c.agent(r, func(g Guest) (any, *apiError) {
		if x, ok := g.(Executor); ok {
			if pid, ok := x.Exec(r.params["command"], r.str("input-data", "")); ok {
				return map[string]any{"pid": pid}, nil
			}
		}
		return nil, &apiError{code: 596, message: "Broken pipe", silent: true}
	})
}

func (c *Cluster) agentExecStatus(r *request) (any, *apiError) {
	return c.agent(r, func(g Guest) (any, *apiError) {
		x, ok := g.(Executor)
		var e Execution
		if ok {
			e, ok = x.ExecStatus(r.num("pid", 0))
		}
		if !ok {
			return nil, failed("Agent error: Invalid parameter 'pid'")
		}
		if !e.Exited {
			return map[string]any{"exited": 0}, nil
		}
		m := map[string]any{"exited": 1, "exitcode": e.Code}
		for name, s := range map[string]string{"out": e.Out, "err": e.Err} {
			if s != "" { // without output there is no field at all
				m[name+"-data"], m[name+"-truncated"] = latin1(s), 0
			}
		}
		return m, nil
	})
}

// latin1 is what PVE makes of a guest's bytes: each becomes a character of its own.
func latin1(s string) string {
	runes := make([]rune, len(s))
	for i := range len(s) {
		runes[i] = rune(s[i])
	}
	return string(runes)
}
