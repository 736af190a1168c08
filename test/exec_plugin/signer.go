package main

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// defaultLifetime is SPIRE's.
const defaultLifetime = 5 * time.Minute

// An identity is what the server has for whoever calls.
type identity struct {
	SpiffeID string `json:"spiffeId"`
	Hint     string `json:"hint"`
	// LifetimeSeconds may be negative; 0 is five minutes.
	LifetimeSeconds int `json:"lifetimeSeconds"`
	// Claims are laid over the usual ones; null removes one.
	Claims map[string]any `json:"claims"`
	// Svid is sent in place of a token, if it is given.
	Svid *string `json:"svid"`
}

type signer struct {
	jose   jose.Signer
	issuer string
}

func newSigner(keyFile, keyID, issuer string) (*signer, error) {
	text, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM", keyFile)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	signing := jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: keyID}}
	made, err := jose.NewSigner(signing, (&jose.SignerOptions{}).WithType("JWT"))
	return &signer{jose: made, issuer: issuer}, err
}

func (s *signer) svid(one identity, audience []string) (string, error) {
	if one.Svid != nil {
		return *one.Svid, nil
	}
	lifetime := time.Duration(one.LifetimeSeconds) * time.Second
	if lifetime == 0 {
		lifetime = defaultLifetime
	}
	now := time.Now()
	claims := map[string]any{
		"iss": s.issuer,
		"sub": one.SpiffeID,
		"aud": audience,
		"iat": now.Unix(),
		"exp": now.Add(lifetime).Unix(),
		// So that no two are the same, whatever the second.
		"jti": rand.Text(),
	}
	maps.Copy(claims, one.Claims)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	return jwt.Signed(s.jose).Claims(claims).Serialize()
}
