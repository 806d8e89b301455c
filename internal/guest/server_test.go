package guest_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/fleet"
	"mayfly/internal/guest"
	simguest "mayfly/internal/sim/guest"
)

// pair is a private key and its public half in authorized_keys form.
func pair(t *testing.T, seed string) (ssh.Signer, string) {
	t.Helper()
	private := ed25519.NewKeyFromSeed([]byte(strings.Repeat(seed, ed25519.SeedSize)))
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer, string(ssh.MarshalAuthorizedKey(signer.PublicKey()))
}

// sshd is an SSH server as odd as a test wants it. Its fields must not change once it is used.
type sshd struct {
	*testing.T
	banner time.Duration // before it says anything
	refuse int           // so many connections are closed before the handshake
	// run is the command: what it returns is the exit status; drop closes the connection instead.
	run func(command string, ch ssh.Channel, drop func()) int

	key      ssh.Signer // its host key
	login    ssh.PublicKey
	address  fleet.Address
	work     sync.WaitGroup
	mu       sync.Mutex
	conns    int
	commands []string
}

// newSSHD returns a server, and a client of it whose Config was changed by with.
func newSSHD(t *testing.T, s *sshd, with ...func(*guest.Config)) *guest.SSH {
	t.Helper()
	s.T = t
	host, hostLine := pair(t, "h")
	login, _ := pair(t, "c")
	if s.key == nil {
		s.key = host
	}
	s.login = login.PublicKey()
	s.address = fleet.Address{IP: "10.1.2.3", HostKey: hostLine}
	c := guest.Config{User: "orchestrator", Signer: login, Dial: s.dial}
	for _, w := range with {
		w(&c)
	}
	client, err := guest.NewSSH(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.work.Wait)
	return client
}

func (s *sshd) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if addr != "10.1.2.3:22" {
		s.Errorf("dialled %s", addr)
	}
	here, there := simguest.Pipe()
	s.mu.Lock()
	s.conns++
	n := s.conns
	s.mu.Unlock()
	if n <= s.refuse {
		_ = there.Close()
		return here, nil
	}
	s.work.Go(func() { s.serve(there) })
	return here, nil
}

func (s *sshd) count() (conns, commands int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns, len(s.commands)
}

func (s *sshd) serve(conn net.Conn) {
	defer conn.Close()
	time.Sleep(s.banner)
	config := &ssh.ServerConfig{
		PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if string(key.Marshal()) != string(s.login.Marshal()) {
				return nil, ssh.ErrNoAuth
			}
			return nil, nil
		},
	}
	config.AddHostKey(s.key)
	sc, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { ssh.DiscardRequests(requests) })
	for offered := range channels {
		ch, requests, err := offered.Accept()
		if err != nil {
			return
		}
		work.Go(func() {
			for r := range requests {
				if r.Type != "exec" {
					s.Errorf("the client asks for %q", r.Type)
				}
				command := string(r.Payload[4:])
				s.mu.Lock()
				s.commands = append(s.commands, command)
				s.mu.Unlock()
				_ = r.Reply(true, nil)
				work.Go(func() {
					dropped := false
					status := s.run(command, ch, func() { dropped = true; _ = sc.Close() })
					if !dropped && status >= 0 {
						_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(status)}))
						_ = ch.Close()
					}
				})
			}
		})
	}
}

// proxied is a connection to a proxy that answers so; a good answer comes in one write with the server's first
// bytes, as it may.
func (s *sshd) proxied(ctx context.Context, answer string, closes bool) (net.Conn, error) {
	here, there := simguest.Pipe()
	s.work.Go(func() {
		defer there.Close()
		head := bufio.NewReader(there)
		r, err := http.ReadRequest(head)
		if err != nil || r.Method != http.MethodConnect || r.Host != "10.1.2.3:22" {
			s.Errorf("the proxy got %+v, %v", r, err)
			return
		}
		if !strings.HasPrefix(answer, "HTTP/1.1 200") || !strings.HasSuffix(answer, "\r\n\r\n") {
			_, _ = io.WriteString(there, answer)
			if !closes {
				_, _ = there.Read(make([]byte, 1))
			}
			return
		}
		server, err := s.dial(ctx, "tcp", r.Host)
		if err != nil {
			s.Error(err)
			return
		}
		defer server.Close()
		first := make([]byte, 100)
		n, _ := server.Read(first)
		_, _ = there.Write(append([]byte(answer), first[:n]...))
		var both sync.WaitGroup
		defer both.Wait()
		both.Go(func() {
			_, _ = io.Copy(server, head)
			_ = server.Close()
		})
		_, _ = io.Copy(there, server)
		_ = there.Close()
	})
	return here, nil
}
