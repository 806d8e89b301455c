package proxmox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/fleet"
)

const (
	// sshd makes its host keys before it listens (Win32-OpenSSH, wmain_sshd.c), and Windows is ready
	// later still: to ask every few seconds delays no runner.
	minRetry   = 2 * time.Second
	maxRetry   = 5 * time.Second
	goneAfter  = 10 * time.Second // apart, before two answers that it does not run are believed
	ipv6After  = 60 * time.Second // without an IPv4
	maxHostKey = 16 << 10
	earlyBoots = 0.95 // share of the fastest of the last boots after which we ask
)

// Find waits until the guest agent tells the guest's address, that of the interface with r.MAC,
// and its Ed25519 host key. Without r.MAC it is read from the VM's config.
//
// It ends early only when the VM does not run any more (ErrGone), and for what a person must
// change (ErrConfig): a missing privilege, a refused token, a template without agent.
func (c *Client) Find(ctx context.Context, r fleet.Runner) (fleet.Address, error) {
	f := finder{client: c, r: r, retry: c.scaled(minRetry)}
	a, err := f.run(ctx)
	if err != nil {
		return fleet.Address{}, fmt.Errorf("proxmox: find VM %d on node %s: %w", r.VMID, r.Node, err)
	}
	return a, nil
}

// A finder is one Find under way.
type finder struct {
	client *Client
	r      fleet.Runner
	waited bool          // it was asked before it had what we asked for
	silent bool          // the last answer was that there is no agent
	retry  time.Duration // the next pause
	away   time.Time     // since when every answer says that the VM does not run
	last   error
}

func (f *finder) run(ctx context.Context) (fleet.Address, error) {
	c := f.client
	if f.r.MAC == "" {
		cfg, err := c.config(ctx, f.r.Node, f.r.VMID)
		if err != nil {
			return fleet.Address{}, err
		}
		if f.r.MAC = macOf(string(cfg.Net0)); f.r.MAC == "" {
			return fleet.Address{}, fmt.Errorf("%w: the VM has no net0", fleet.ErrConfig)
		}
	}
	if err := pause(ctx, f.untilFirstPing()); err != nil {
		return fleet.Address{}, err
	}
	// The key first: a guest has it later than its address, and Proxmox itself pings the agent before each
	// command (qemu-server: PVE/API2/Qemu/Agent.pm), so that nothing is gained by a ping of ours.
	var a fleet.Address
	err := f.until(ctx, func(ctx context.Context) (err error) {
		a.HostKey, err = f.hostKey(ctx)
		return err
	})
	if err != nil {
		return fleet.Address{}, err
	}
	f.learn()
	asked := time.Now()
	err = f.until(ctx, func(ctx context.Context) error {
		interfaces, err := f.interfaces(ctx)
		if err != nil {
			return err
		}
		ip, ok := pick(interfaces, f.r.MAC, time.Since(asked) >= c.scaled(ipv6After))
		if !ok {
			return fmt.Errorf("%w: no address yet on the interface %s", fleet.ErrNotReady, f.r.MAC)
		}
		a.IP = ip.String()
		return nil
	})
	return a, err
}

// untilFirstPing is how long the guest is left alone: a call that finds no agent holds one of three
// pvedaemon workers for 3 s.
func (f *finder) untilFirstPing() time.Duration {
	c := f.client
	first := c.scaled(c.cfg.FirstPing)
	if fastest, ok := c.bootTimes.fastest(f.template()); ok {
		first = time.Duration(earlyBoots * float64(fastest))
	}
	if f.r.StartedAt.IsZero() {
		return 0 // nobody knows since when it runs
	}
	return first - time.Since(f.r.StartedAt)
}

func (f *finder) template() string { return strconv.Itoa(f.r.Template) }

// learn remembers how long the guest took to have its host key, unless it may have had it long before.
func (f *finder) learn() {
	if f.r.StartedAt.IsZero() {
		return
	}
	took := time.Since(f.r.StartedAt)
	fastest, known := f.client.bootTimes.fastest(f.template())
	if f.waited || known && took < fastest {
		f.client.bootTimes.add(f.template(), took)
	}
}

// until repeats an agent call until it does well, one place of the node's gate at a time.
func (f *finder) until(ctx context.Context, ask func(context.Context) error) error {
	c := f.client
	for {
		leave, err := c.agents.enter(ctx, f.r.Node)
		if err != nil {
			return gaveUp(ctx, f.last)
		}
		err = ask(ctx)
		leave()
		if err == nil {
			f.away, f.retry = time.Time{}, c.scaled(minRetry)
			return nil
		}
		if ctx.Err() != nil {
			return gaveUp(ctx, cmpErr(f.last, err))
		}
		f.last = err
		if final := f.final(ctx, err); final != nil {
			return final
		}
		silent := causeOf(err) == agentSilent
		if f.silent && !silent {
			f.retry = c.scaled(minRetry) // it has begun to answer
		}
		f.waited, f.silent = true, silent
		if pause(ctx, f.retry) != nil {
			return gaveUp(ctx, err)
		}
		f.retry = min(f.retry*5/4, c.scaled(maxRetry))
	}
}

// final returns the error that ends the search, nil while there is hope.
func (f *finder) final(ctx context.Context, err error) error {
	c := f.client
	switch causeOf(err) {
	case notRunning, missing, denied:
	case badToken, agentMissing, badTLS, notProxmox, unsupported, badRequest:
		return err
	default:
		f.away = time.Time{}
		return nil
	}
	if f.away.IsZero() {
		f.away = time.Now()
		if causeOf(err) == denied {
			if err := c.privilege(ctx, f.r.Node, f.r.VMID, err); errors.Is(err, fleet.ErrConfig) {
				return err
			}
		}
		return nil
	}
	if time.Since(f.away) < c.scaled(goneAfter) {
		return nil
	}
	if causeOf(err) == denied {
		return err
	}
	return fmt.Errorf("%w: %w", fleet.ErrGone, err)
}

func (f *finder) ask(ctx context.Context, k call, method, rest string, params url.Values, out any) error {
	_, err := f.client.do(ctx, request{call: k, method: method, path: vmPath(f.r.Node, f.r.VMID, "/agent/"+rest), subject: strconv.Itoa(f.r.VMID), params: params}, out)
	return err
}

// A guestInterface is what the agent tells of one network interface. All but its name may be
// missing; Windows' loopback has no MAC.
type guestInterface struct {
	MAC       text `json:"hardware-address"`
	Addresses []struct {
		IP text `json:"ip-address"`
	} `json:"ip-addresses"`
}

// An agentAnswer is what a plain agent command returns. An error of the agent's comes with
// HTTP 200 too, as an object in the place of the result.
type agentAnswer struct {
	Result json.RawMessage `json:"result"`
}

// err is the agent's error, nil if it did well.
func (a agentAnswer) err() error {
	var e struct {
		Error *struct {
			Desc text `json:"desc"`
		} `json:"error"`
	}
	if json.Unmarshal(a.Result, &e) != nil || e.Error == nil {
		return nil
	}
	return fmt.Errorf("%w: the agent says %s", fleet.ErrNotReady, printable(latin1(string(e.Error.Desc))))
}

func (f *finder) interfaces(ctx context.Context) ([]guestInterface, error) {
	var a agentAnswer
	if err := f.ask(ctx, callInterfaces, http.MethodGet, "network-get-interfaces", nil, &a); err != nil {
		return nil, err
	}
	return readInterfaces(a)
}

func readInterfaces(a agentAnswer) ([]guestInterface, error) {
	if err := a.err(); err != nil {
		return nil, err
	}
	var list []guestInterface
	if err := json.Unmarshal(a.Result, &list); err != nil {
		return nil, fmt.Errorf("the agent's interfaces: %w", err)
	}
	return list, nil
}

// pick chooses the address on the interface with that MAC: an IPv4, or with late a global
// IPv6 too. Loopback, link-local and APIPA addresses are none.
func pick(interfaces []guestInterface, mac string, late bool) (netip.Addr, bool) {
	var v6 netip.Addr
	for _, i := range interfaces {
		if !sameMAC(string(i.MAC), mac) {
			continue
		}
		for _, a := range i.Addresses {
			ip, err := netip.ParseAddr(string(a.IP))
			if err != nil || ip.Zone() != "" {
				continue
			}
			ip = ip.Unmap()
			if !ip.IsGlobalUnicast() {
				continue
			}
			if ip.Is4() {
				return ip, true
			}
			if !v6.IsValid() {
				v6 = ip
			}
		}
	}
	return v6, late && v6.IsValid()
}

func sameMAC(a, b string) bool {
	return a != "" && strings.EqualFold(strings.ReplaceAll(a, "-", ":"), strings.ReplaceAll(b, "-", ":"))
}

// hostKey reads the guest's Ed25519 host key, in authorized_keys form without its comment.
func (f *finder) hostKey(ctx context.Context) (string, error) {
	var file struct {
		Content text `json:"content"`
	}
	if err := f.ask(ctx, callFileRead, http.MethodGet, "file-read", url.Values{"file": {f.client.cfg.HostKeyPath}}, &file); err != nil {
		return "", err
	}
	if len(file.Content) > maxHostKey {
		return "", fmt.Errorf("%w: its host key file has %d bytes", fleet.ErrNotReady, len(file.Content))
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(latin1(string(file.Content))))
	if err != nil || key.Type() != ssh.KeyAlgoED25519 {
		return "", fmt.Errorf("%w: its host key file holds no Ed25519 key yet", fleet.ErrNotReady)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))), nil
}

// latin1 repairs text from a guest: Proxmox sends its bytes as if they were Latin-1, so that a
// UTF-8 é arrives as Ã©.
func latin1(s string) string {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		if r > 0xFF {
			return s
		}
		b = append(b, byte(r))
	}
	if !utf8.Valid(b) {
		return s
	}
	return string(b)
}
