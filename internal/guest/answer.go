package guest

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"mayfly/internal/fleet"
	"mayfly/internal/guest/wire"
)

// guest is what the helper said, or the error that its exit status stands for.
func (a answer) guest() (fleet.Guest, error) {
	g := fleet.Guest{Phase: fleet.GuestNone}
	if a.state != nil {
		g = fleet.Guest{
			Ready: a.state.Ready, Phase: fleet.GuestPhase(a.state.Phase), ID: a.state.ID,
			Result: a.state.Result, Exit: a.state.Exit,
		}
	}
	err := a.failure()
	if err == nil && a.state == nil {
		err = errors.New("the helper ended well and told no state; is it of this version?")
	}
	return g, err
}

// failure gives an exit status the class of what the caller can do about it.
func (a answer) failure() error {
	class, advice := error(nil), ""
	switch a.code {
	case wire.ExitOK:
		return nil
	case wire.ExitNotReady:
		class = fleet.ErrNotReady
	case wire.ExitOtherOrder:
		class = fleet.ErrBusy
	case wire.ExitBadOrder:
		class, advice = fleet.ErrConfig, "put the helper of this version into the template"
	case wire.ExitPreflight, wire.ExitNoRunner, wire.ExitNoLogon:
		class, advice = fleet.ErrConfig, "mend the template"
	case wire.ExitNameOrGroup:
		class, advice = fleet.ErrConfig, "check the runner group of the pool"
	case wire.ExitVersionDeprecated:
		class, advice = fleet.ErrConfig, "put a newer runner into the template"
	case 127, 9009: // sh and cmd.exe: no such command
		class, advice = fleet.ErrConfig, "put the helper into the template"
	}
	text := fmt.Sprintf("exit code %d", a.code)
	for _, more := range []string{wire.Meaning(a.code), a.redacted(a.fatal), a.redacted(string(a.stderr.kept)), advice} {
		if more != "" {
			text += ": " + more
		}
	}
	if class == nil {
		return errors.New(text)
	}
	return fmt.Errorf("%w: %s", class, text)
}

// shared is how many characters in a row a text and a secret may have in common: a text may
// hold a part of the secret only, cut by some bound.
const shared = 12

// redacted is text without the secret, its usual other forms or any longer part of them, fit for people.
func (a answer) redacted(text string) string {
	secret := a.secret.Reveal()
	if secret == "" {
		return shown(text)
	}
	parts := map[string]bool{}
	for _, form := range []string{secret, base64.StdEncoding.EncodeToString([]byte(secret)), base64.RawURLEncoding.EncodeToString([]byte(secret)), url.QueryEscape(secret)} {
		text = strings.ReplaceAll(text, form, "***")
		for i := 0; i+shared <= len(form); i++ {
			parts[form[i:i+shared]] = true
		}
	}
	var out strings.Builder
	hiddenTo := 0
	for i := range len(text) {
		if i+shared <= len(text) && parts[text[i:i+shared]] {
			if i >= hiddenTo {
				out.WriteString("***")
			}
			hiddenTo = i + shared
		}
		if i >= hiddenTo {
			out.WriteByte(text[i])
		}
	}
	return shown(out.String())
}

// shown is a stranger's text as one short line of printable characters.
func shown(text string) string {
	const most = 300
	text = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(text, "?"), func(r rune) bool {
		return r <= ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == 0x2028 || r == 0x2029 || (r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069)
	}), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}
