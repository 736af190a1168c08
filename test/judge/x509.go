package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// A chain is what x509 judges: certificates in DER, those of the chain with the
// leaf first, and the CA certificates of each trust domain by its name.
type chain struct {
	Chain   [][]byte            `json:"chain"`
	Bundles map[string][][]byte `json:"bundles"`
	// Now is in seconds since the epoch.
	Now int64 `json:"now"`
}

// judgeX509SVID judges chains as X.509-SVIDs, each by bundles of its own.
func judgeX509SVID(_ context.Context, args []string) error {
	if err := parseRequired(flag.NewFlagSet("x509", flag.ExitOnError), args); err != nil {
		return err
	}
	return serve(spiffeModule, func(line string) (facts, error) {
		var given chain
		if err := json.Unmarshal([]byte(line), &given); err != nil {
			return nil, fmt.Errorf("not a chain: %w", err)
		}
		bundles, err := given.bundles()
		if err != nil {
			return nil, err
		}
		id, _, err := x509svid.ParseAndVerify(given.Chain, bundles, x509svid.WithTime(time.Unix(given.Now, 0)))
		if err != nil {
			return nil, err
		}
		return facts{"id": id.String()}, nil
	})
}

func (c chain) bundles() (*x509bundle.Set, error) {
	set := x509bundle.NewSet()
	for name, authorities := range c.Bundles {
		trustDomain, err := spiffeid.TrustDomainFromString(name)
		if err != nil {
			return nil, err
		}
		bundle := x509bundle.New(trustDomain)
		for _, der := range authorities {
			certificate, err := x509.ParseCertificate(der)
			if err != nil {
				return nil, err
			}
			bundle.AddX509Authority(certificate)
		}
		set.Add(bundle)
	}
	return set, nil
}
