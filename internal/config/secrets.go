package config

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/fleet"
)

// minSecret is how many characters make a secret that is not guessed.
const minSecret = 16

// readSecrets reads what the file names. Nothing that it reads ever stands in a problem.
func (c *Config) readSecrets(r *report, env func(string) string) {
	if text, ok := r.secretFile("web.token_file", c.Web.TokenFile); ok {
		if c.Web.Token = r.oneSecret("web.token_file", text); len(c.Web.Token) < minSecret {
			r.bad("web.token_file", "the token in %s is shorter than %d characters: make one with `openssl rand -hex 32`", c.Web.TokenFile, minSecret)
		}
	}
	if text, ok := r.secretFile("webhook.secret_file", c.Webhook.SecretFile); ok {
		for i, line := range lines(text) {
			if len(line) < minSecret {
				r.bad("webhook.secret_file", "the secret in line %d of %s is shorter than %d characters: make one with `openssl rand -hex 32` and give it to GitHub too",
					i+1, c.Webhook.SecretFile, minSecret)
			}
			c.Webhook.Secrets = append(c.Webhook.Secrets, fleet.Secret(line))
		}
	}
	c.Proxmox.Secret = r.secret("proxmox.secret", c.Proxmox.SecretFile, c.Proxmox.SecretEnv, env)
	c.GitHub.Token = r.secret("github.token", c.GitHub.TokenFile, c.GitHub.TokenEnv, env)
	if text, ok := r.secretFile("ssh.key_file", c.SSH.KeyFile); ok {
		signer, err := ssh.ParsePrivateKey([]byte(text))
		var locked *ssh.PassphraseMissingError
		switch {
		case errors.As(err, &locked):
			r.bad("ssh.key_file", "%s has a passphrase: take it off with `ssh-keygen -p -N '' -f %s`", c.SSH.KeyFile, c.SSH.KeyFile)
		case err != nil: // its text is left out: it may tell of the key
			r.bad("ssh.key_file", "%s is no private SSH key: make one with `ssh-keygen -t ed25519 -N '' -f %s`", c.SSH.KeyFile, c.SSH.KeyFile)
		default:
			c.SSH.Signer = signer
		}
	}
	if c.Proxmox.CAFile != "" {
		text, err := readFile(c.Proxmox.CAFile)
		pool := x509.NewCertPool()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			r.bad("proxmox.ca_file", "%s does not exist: copy /etc/pve/pve-root-ca.pem of a node there", c.Proxmox.CAFile)
		case err != nil:
			r.bad("proxmox.ca_file", "%s: %s", c.Proxmox.CAFile, err)
		case !pool.AppendCertsFromPEM(text):
			r.bad("proxmox.ca_file", "%s has no certificate: copy /etc/pve/pve-root-ca.pem of a node there", c.Proxmox.CAFile)
		default:
			c.Proxmox.CA = pool
		}
	}
}

// secret reads the secret name from its file or its environment variable; that one of both is named, check has seen to.
func (r *report) secret(name, file, variable string, env func(string) string) fleet.Secret {
	if text, ok := r.secretFile(name+"_file", file); ok {
		return r.oneSecret(name+"_file", text)
	}
	if !isVariable.MatchString(variable) {
		return ""
	}
	text := env(variable)
	if len(lines(text)) == 0 {
		// The variable is not said: people write the secret itself there.
		r.bad(name+"_env", "the environment variable that it names is not set or empty: set it, or name a file with %s_file", name)
		return ""
	}
	return r.oneSecret(name+"_env", text)
}

func (r *report) oneSecret(path, text string) fleet.Secret {
	all := lines(text)
	if len(all) != 1 {
		r.bad(path, "one line is wanted in it, and it has %d: leave the others out", len(all))
		return ""
	}
	return fleet.Secret(all[0])
}

// secretFile reads a file that nobody else may read; ok is false, and told, if that cannot be. A file "" is no file.
func (r *report) secretFile(path, file string) (text string, ok bool) {
	if file == "" {
		return "", false
	}
	data, err := readFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.bad(path, "%s does not exist: make it with `install -m 0600 /dev/null %s` and write the secret to it", file, file)
		return "", false
	case err != nil:
		r.bad(path, "%s: %s", file, err)
		return "", false
	}
	if err := private(file); err != nil {
		r.bad(path, "%s", err)
		return "", false
	}
	if len(bytes.TrimSpace(data)) == 0 {
		r.bad(path, "%s is empty: write the secret to it", file)
		return "", false
	}
	return string(data), true
}

// private tells whether only the file's owner may read it. On Windows the mode says nothing about that.
func private(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return plainPathError(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("others may read %s (mode %04o): `chmod 600 %s`", file, info.Mode().Perm(), file)
	}
	return nil
}
