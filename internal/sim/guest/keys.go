package guest

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"

	"golang.org/x/crypto/ssh"
)

// templateKeys are the RSA and ECDSA host keys, which all guests of a Farm share: making an RSA key for each
// of a thousand guests would cost minutes. No client of ours may ever use them.
func templateKeys(seed uint64) ([]ssh.Signer, error) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048) // crypto/rsa makes none from a seed
	if err != nil {
		return nil, err
	}
	number := sha256.Sum256(fmt.Appendf(nil, "mayfly sim ecdsa %d", seed))
	number[0] = 0 // below the order of P-256
	ecdsaKey, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), number[:])
	if err != nil {
		return nil, err
	}
	var signers []ssh.Signer
	for _, key := range []any{rsaKey, ecdsaKey} {
		s, err := ssh.NewSignerFromKey(key)
		if err != nil {
			return nil, err
		}
		signers = append(signers, s)
	}
	return signers, nil
}

// hostKey is the Ed25519 key on this VM's disk: fresh for every clone, the same at every boot of it. The wrong one
// is what a file says that is not sshd's.
func (g *Guest) hostKey(wrong bool) (ssh.Signer, error) {
	seed := sha256.Sum256(fmt.Appendf(nil, "mayfly sim ed25519 %d %d %q %q %t", g.farm.cfg.Seed, g.vmid, g.name, g.mac, wrong))
	return ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(seed[:]))
}
