package guest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/guest/wire"
)

// accept is a connection to sshd; nil when it does not listen. frozen: nothing will ever answer.
func (g *Guest) accept() (conn net.Conn, frozen bool) {
	here, there := Pipe()
	g.mu.Lock()
	if g.frozen {
		g.mu.Unlock()
		return nil, true
	}
	up := g.sshd && g.lease == leased
	if up {
		g.conns[there] = true
	}
	g.mu.Unlock()
	if !up || !g.farm.spawn(func() { g.serve(there) }) {
		_ = there.Close()
		return nil, false
	}
	return here, false
}

func (g *Guest) serverConfig() (*ssh.ServerConfig, error) {
	c := &ssh.ServerConfig{
		// What OpenSSH of Windows 11 offers, less what costs time and changes nothing here.
		Config:        ssh.Config{KeyExchanges: []string{ssh.KeyExchangeCurve25519}, Ciphers: []string{ssh.CipherAES128GCM}},
		ServerVersion: "SSH-2.0-OpenSSH_for_Windows_9.5",
		MaxAuthTries:  3,
		PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if g.farm.mayLogIn(key) {
				return nil, nil
			}
			return nil, errors.New("not in administrators_authorized_keys")
		},
	}
	shared, err := g.farm.shared()
	if err != nil {
		return nil, err
	}
	own, err := g.hostKey(false)
	if err != nil {
		return nil, err
	}
	for _, key := range append(shared[:len(shared):len(shared)], own) {
		c.AddHostKey(key)
	}
	return c, nil
}

// serve is sshd with one connection.
func (g *Guest) serve(conn net.Conn) {
	defer g.change(func() { delete(g.conns, conn) })
	defer conn.Close()
	config, err := g.server()
	if err != nil {
		return
	}
	sc, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	var work sync.WaitGroup
	defer work.Wait()
	ctx, cancel := context.WithCancel(g.os)
	defer cancel()
	work.Go(func() { ssh.DiscardRequests(requests) })
	for offered := range channels {
		if offered.ChannelType() != "session" {
			_ = offered.Reject(ssh.Prohibited, "no forwarding")
			continue
		}
		channel, requests, err := offered.Accept()
		if err != nil {
			break
		}
		work.Go(func() { g.session0(ctx, channel, requests, sc, &work) })
	}
}

// session0 is one session of the service (session 0 is where Windows services live): it runs one command.
func (g *Guest) session0(ctx context.Context, channel ssh.Channel, requests <-chan *ssh.Request, conn ssh.Conn, work *sync.WaitGroup) {
	running := false
	for r := range requests {
		var exec struct{ Command string }
		if r.Type != "exec" || running || ssh.Unmarshal(r.Payload, &exec) != nil {
			_ = r.Reply(false, nil)
			continue
		}
		running = true
		_ = r.Reply(true, nil)
		work.Go(func() {
			code := g.run(ctx, exec.Command, channel, conn)
			if ctx.Err() != nil {
				return // without power nobody tells an exit status any more
			}
			_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(code)}))
			_ = channel.Close()
		})
	}
}

// run is cmd.exe /c command.
func (g *Guest) run(ctx context.Context, command string, channel ssh.Channel, conn ssh.Conn) int {
	tell := func(l wire.Line) {
		line := l.Encode() // a Windows console program ends its lines with CR LF
		_, _ = channel.Write(append(line[:len(line)-1], "\r\n"...))
	}
	exit := func(code int) int {
		if code != wire.ExitOK && code != wire.ExitNotReady {
			tell(wire.Line{What: wire.HappenedFatal, Code: code, Message: wire.Meaning(code)})
		}
		tell(wire.Line{What: wire.HappenedExit, Code: code})
		return code
	}
	tellState := func() {
		s := g.State()
		tell(wire.Line{What: wire.HappenedState, State: &s})
	}
	path, verb, _ := strings.Cut(command, " ")
	if !strings.EqualFold(path, g.farm.cfg.Command) {
		fmt.Fprintf(channel.Stderr(), "'%.100s' is not recognized as an internal or external command,\r\noperable program or batch file.\r\n", path)
		return wire.ExitError
	}
	if verb != wire.CommandStatus && verb != wire.CommandStart {
		return exit(wire.ExitBadOrder)
	}
	if verb == wire.CommandStatus || !g.State().Ready {
		tellState()
		if !g.State().Ready {
			return exit(wire.ExitNotReady)
		}
		return exit(wire.ExitOK)
	}
	order, err := wire.ReadOrder(channel)
	switch {
	case errors.Is(err, wire.ErrBadOrder):
		return exit(wire.ExitBadOrder)
	case err != nil:
		return exit(wire.ExitNoOrder)
	}
	fresh, code := g.take(order)
	if code != wire.ExitOK {
		return exit(code)
	}
	if fresh {
		if g.plan.dropStart {
			_ = conn.Close()
			return wire.ExitError
		}
		tell(wire.Line{What: wire.HappenedPhase, Step: "listener", Outcome: "start"})
		if code := g.listening(ctx); code != wire.ExitOK {
			tellState()
			return exit(code)
		}
		tell(wire.Line{What: wire.HappenedReady, Version: "2.336.0", PID: 4321})
	}
	tellState()
	return exit(wire.ExitOK)
}
