package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// judgeByFederation judges SVIDs of a trust domain by the bundle that its
// endpoint serves over https_web: fetched once, then watched.
func judgeByFederation(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("federation", flag.ExitOnError)
	issuer := addIssuerFlags(flags)
	name := flags.String("trust-domain", "", "`NAME` of the SVIDs' trust domain")
	if err := parseRequired(flags, args); err != nil {
		return err
	}
	trustDomain, err := spiffeid.TrustDomainFromString(*name)
	if err != nil {
		return err
	}
	roots, err := readRoots(issuer.caFile)
	if err != nil {
		return err
	}
	option := federation.WithWebPKIRoots(roots)
	first, err := federation.FetchBundle(ctx, trustDomain, issuer.url, option)
	if err != nil {
		return err
	}
	watched := &watcher{bundle: first}
	go func() { watched.ended(federation.WatchBundle(ctx, trustDomain, issuer.url, watched, option)) }()

	return serve(spiffeModule, func(svid string) (facts, error) { return watched.judge(svid, issuer.audience) })
}

func readRoots(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: no PEM certificate", file)
	}
	return roots, nil
}

// A watcher keeps the newest bundle of one trust domain.
type watcher struct {
	lock   sync.Mutex
	bundle *spiffebundle.Bundle
	hint   time.Duration
	errs   []error
}

// NextRefresh does not wait as long as the hint says: a test has less time.
func (w *watcher) NextRefresh(hint time.Duration) time.Duration {
	w.lock.Lock()
	defer w.lock.Unlock()
	w.hint = hint
	return time.Second
}

func (w *watcher) OnUpdate(bundle *spiffebundle.Bundle) {
	w.lock.Lock()
	defer w.lock.Unlock()
	w.bundle = bundle
}

func (w *watcher) OnError(err error) {
	w.lock.Lock()
	defer w.lock.Unlock()
	w.errs = append(w.errs, err)
}

func (w *watcher) ended(err error) { w.OnError(fmt.Errorf("watching has ended: %w", err)) }

// judge takes a JWT-SVID, an X.509-SVID as PEM, or the word "bundle", which
// asks what the bundle holds.
func (w *watcher) judge(svid, audience string) (facts, error) {
	w.lock.Lock()
	defer w.lock.Unlock()
	switch {
	case svid == "bundle":
		sequence, hasSequence := w.bundle.SequenceNumber()
		hint, hasHint := w.bundle.RefreshHint()
		if !hasSequence || !hasHint {
			return nil, errors.New("no sequence or no refresh hint")
		}
		return facts{
			"sequence":    sequence,
			"refreshHint": hint.Seconds(),
			"watchedHint": w.hint.Seconds(),
			"x509":        len(w.bundle.X509Authorities()),
			"jwt":         len(w.bundle.JWTAuthorities()),
			"errors":      len(w.errs),
		}, nil
	case strings.HasPrefix(svid, "-----BEGIN"):
		chain, err := parseChain(svid)
		if err != nil {
			return nil, err
		}
		id, _, err := x509svid.Verify(chain, w.bundle)
		return facts{"spiffe_id": id.String()}, err
	default:
		parsed, err := jwtsvid.ParseAndValidate(svid, w.bundle, []string{audience})
		if err != nil {
			return nil, err
		}
		return facts{"spiffe_id": parsed.ID.String()}, nil
	}
}

func parseChain(text string) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return chain, nil
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		chain = append(chain, certificate)
	}
}
