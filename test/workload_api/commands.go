package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// program is what a program of a workload's keeps for as long as it runs.
type program struct {
	address string
	option  workloadapi.SourceOption
	client  workloadapi.ClientOption
	x509    *workloadapi.X509Source
	seen    *watcher
}

func newProgram(address string) *program {
	client := workloadapi.WithAddr(address)
	return &program{address: address, client: client, option: workloadapi.WithClientOptions(client)}
}

func (p *program) commands() map[string]command {
	return map[string]command{
		"x509":       p.fetchX509,
		"source":     p.current,
		"bundles":    p.bundleSource,
		"jwt":        p.fetchJWT,
		"source-jwt": p.jwtSource,
		"validate":   p.validate,
		"raw":        p.raw,
		"burst":      p.burst,
		"watch":      p.watch,
		"updates":    p.updates,
		"listen":     p.listen,
		"call":       p.call,
	}
}

func describe(svid *x509svid.SVID) facts {
	leaf := svid.Certificates[0]
	return facts{
		"id":      svid.ID.String(),
		"hint":    svid.Hint,
		"serial":  leaf.SerialNumber.Text(16),
		"expires": leaf.NotAfter.Unix(),
	}
}

func (p *program) fetchX509(ctx context.Context, _ []string) (facts, error) {
	svids, err := workloadapi.FetchX509SVIDs(ctx, p.client)
	if err != nil {
		return nil, err
	}
	all := make([]facts, len(svids))
	for i, svid := range svids {
		all[i] = describe(svid)
	}
	return facts{"svids": all}, nil
}

// source returns the one X509Source, made with its first use.
func (p *program) source(ctx context.Context) (*workloadapi.X509Source, error) {
	if p.x509 == nil {
		source, err := workloadapi.NewX509Source(ctx, p.option)
		if err != nil {
			return nil, err
		}
		p.x509 = source
	}
	return p.x509, nil
}

func (p *program) current(ctx context.Context, _ []string) (facts, error) {
	source, err := p.source(ctx)
	if err != nil {
		return nil, err
	}
	svid, err := source.GetX509SVID()
	if err != nil {
		return nil, err
	}
	return describe(svid), nil
}

// bundleSource tells how many authorities a BundleSource has for a trust domain.
func (p *program) bundleSource(ctx context.Context, arguments []string) (facts, error) {
	source, err := workloadapi.NewBundleSource(ctx, p.option)
	if err != nil {
		return nil, err
	}
	defer source.Close()
	trustDomain, err := spiffeid.TrustDomainFromString(arguments[0])
	if err != nil {
		return nil, err
	}
	bundle, err := source.GetBundleForTrustDomain(trustDomain)
	if err != nil {
		return nil, err
	}
	return facts{"x509": len(bundle.X509Authorities()), "jwt": len(bundle.JWTAuthorities())}, nil
}

// parameters are AUDIENCE [ID].
func parameters(arguments []string) (jwtsvid.Params, error) {
	wanted := jwtsvid.Params{Audience: arguments[0]}
	if len(arguments) > 1 {
		id, err := spiffeid.FromString(arguments[1])
		if err != nil {
			return wanted, err
		}
		wanted.Subject = id
	}
	return wanted, nil
}

func (p *program) fetchJWT(ctx context.Context, arguments []string) (facts, error) {
	wanted, err := parameters(arguments)
	if err != nil {
		return nil, err
	}
	svids, err := workloadapi.FetchJWTSVIDs(ctx, wanted, p.client)
	if err != nil {
		return nil, err
	}
	all := make([]facts, len(svids))
	for i, svid := range svids {
		all[i] = facts{"id": svid.ID.String(), "token": svid.Marshal(), "audience": svid.Audience, "hint": svid.Hint}
	}
	return facts{"svids": all}, nil
}

// jwtSource fetches by a JWTSource, and lets go-spiffe itself judge the token
// by the bundles of the source: for AUDIENCE, and for somebody else.
func (p *program) jwtSource(ctx context.Context, arguments []string) (facts, error) {
	source, err := workloadapi.NewJWTSource(ctx, p.option)
	if err != nil {
		return nil, err
	}
	defer source.Close()
	svid, err := source.FetchJWTSVID(ctx, jwtsvid.Params{Audience: arguments[0]})
	if err != nil {
		return nil, err
	}
	validated, err := jwtsvid.ParseAndValidate(svid.Marshal(), source, []string{arguments[0]})
	if err != nil {
		return nil, err
	}
	_, other := jwtsvid.ParseAndValidate(svid.Marshal(), source, []string{"somebody else"})
	return facts{"id": validated.ID.String(), "refused": fmt.Sprint(other)}, nil
}

func (p *program) validate(ctx context.Context, arguments []string) (facts, error) {
	svid, err := workloadapi.ValidateJWTSVID(ctx, arguments[0], arguments[1], p.client)
	if err != nil {
		return nil, err
	}
	return facts{"id": svid.ID.String(), "claims": svid.Claims}, nil
}

// raw calls a method by grpc-go alone: METHOD, then the values of the security
// header, a comma between them, then AUDIENCE and ID.
func (p *program) raw(ctx context.Context, arguments []string) (facts, error) {
	connection, err := grpc.NewClient(p.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	client := workload.NewSpiffeWorkloadAPIClient(connection)
	for _, value := range splitValues(arguments[1]) {
		ctx = metadata.AppendToOutgoingContext(ctx, "workload.spiffe.io", value)
	}
	audience, id := splitValues(arguments[2]), arguments[3]
	switch arguments[0] {
	case "FetchJWTSVID":
		_, err = client.FetchJWTSVID(ctx, &workload.JWTSVIDRequest{Audience: audience, SpiffeId: id})
	case "ValidateJWTSVID":
		_, err = client.ValidateJWTSVID(ctx, &workload.ValidateJWTSVIDRequest{Audience: arguments[2], Svid: id})
	case "FetchX509SVID":
		err = first(client.FetchX509SVID(ctx, &workload.X509SVIDRequest{}))
	case "FetchX509Bundles":
		err = first(client.FetchX509Bundles(ctx, &workload.X509BundlesRequest{}))
	case "FetchJWTBundles":
		err = first(client.FetchJWTBundles(ctx, &workload.JWTBundlesRequest{}))
	case "FetchWITSVID":
		err = first(client.FetchWITSVID(ctx, &workload.WITSVIDRequest{}))
	case "FetchWITBundles":
		err = first(client.FetchWITBundles(ctx, &workload.WITBundlesRequest{}))
	default:
		err = errors.New("no such method")
	}
	if err != nil {
		return nil, err
	}
	return facts{}, nil
}

func first[Message any](stream grpc.ServerStreamingClient[Message], err error) error {
	if err != nil {
		return err
	}
	_, err = stream.Recv()
	return err
}

// burst has COUNT clients, each with a connection of its own, fetch both kinds
// of SVID at the same time: for AUDIENCE.
func (p *program) burst(ctx context.Context, arguments []string) (facts, error) {
	count, err := strconv.Atoi(arguments[0])
	if err != nil {
		return nil, err
	}
	var (
		group   sync.WaitGroup
		lock    sync.Mutex
		codes   = map[string]int{}
		tokens  = map[string]bool{}
		serials = map[string]bool{}
	)
	for range count {
		group.Go(func() {
			token, serial, err := p.both(ctx, arguments[1])
			lock.Lock()
			defer lock.Unlock()
			codes[status.Code(err).String()]++
			tokens[token], serials[serial] = true, true
		})
	}
	group.Wait()
	return facts{"codes": codes, "tokens": len(tokens), "serials": len(serials)}, nil
}

func (p *program) both(ctx context.Context, audience string) (token, serial string, err error) {
	client, err := workloadapi.New(ctx, p.client)
	if err != nil {
		return "", "", err
	}
	defer client.Close()
	x509, err := client.FetchX509SVID(ctx)
	if err != nil {
		return "", "", err
	}
	jwt, err := client.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience})
	if err != nil {
		return "", "", err
	}
	return jwt.Marshal(), x509.Certificates[0].SerialNumber.Text(16), nil
}

// splitValues separates at commas; of nothing there is none.
func splitValues(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}
