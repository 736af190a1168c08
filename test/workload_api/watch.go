package main

import (
	"context"
	"slices"
	"sync"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/status"
)

// watcher keeps what the three streams have brought.
type watcher struct {
	lock   sync.Mutex
	latest map[string]facts
	counts map[string]int
	errors map[string]string
}

func (w *watcher) update(stream string, learned facts) {
	w.lock.Lock()
	defer w.lock.Unlock()
	w.counts[stream]++
	w.latest[stream] = learned
	delete(w.errors, stream)
}

func (w *watcher) failed(stream string, err error) {
	w.lock.Lock()
	defer w.lock.Unlock()
	w.errors[stream] = status.Code(err).String()
}

func (w *watcher) OnX509ContextUpdate(update *workloadapi.X509Context) {
	learned := describe(update.DefaultSVID())
	learned["trust_domains"] = namesOfX509(update.Bundles)
	w.update("x509", learned)
}

func (w *watcher) OnX509ContextWatchError(err error) { w.failed("x509", err) }

func (w *watcher) OnX509BundlesUpdate(update *x509bundle.Set) {
	w.update("x509_bundles", facts{"trust_domains": namesOfX509(update)})
}

func (w *watcher) OnX509BundlesWatchError(err error) { w.failed("x509_bundles", err) }

func (w *watcher) OnJWTBundlesUpdate(update *jwtbundle.Set) {
	keys := map[string]int{}
	for _, bundle := range update.Bundles() {
		keys[bundle.TrustDomain().Name()] = len(bundle.JWTAuthorities())
	}
	w.update("jwt_bundles", facts{"keys": keys})
}

func (w *watcher) OnJWTBundlesWatchError(err error) { w.failed("jwt_bundles", err) }

func namesOfX509(set *x509bundle.Set) []string {
	var names []string
	for _, bundle := range set.Bundles() {
		names = append(names, bundle.TrustDomain().Name())
	}
	slices.Sort(names)
	return names
}

// watch holds the three streams open from now on.
func (p *program) watch(_ context.Context, _ []string) (facts, error) {
	ctx := context.Background()
	client, err := workloadapi.New(ctx, p.client)
	if err != nil {
		return nil, err
	}
	p.seen = &watcher{latest: map[string]facts{}, counts: map[string]int{}, errors: map[string]string{}}
	go func() { _ = client.WatchX509Context(ctx, p.seen) }()
	go func() { _ = client.WatchX509Bundles(ctx, p.seen) }()
	go func() { _ = client.WatchJWTBundles(ctx, p.seen) }()
	return facts{}, nil
}

// updates tells what the streams have brought so far.
func (p *program) updates(_ context.Context, _ []string) (facts, error) {
	p.seen.lock.Lock()
	defer p.seen.lock.Unlock()
	learned := facts{}
	for stream, latest := range p.seen.latest {
		entry := facts{"updates": p.seen.counts[stream]}
		for name, value := range latest {
			entry[name] = value
		}
		learned[stream] = entry
	}
	if len(p.seen.errors) > 0 {
		errors := facts{}
		for stream, code := range p.seen.errors {
			errors[stream] = code
		}
		learned["errors"] = errors
	}
	return learned, nil
}
