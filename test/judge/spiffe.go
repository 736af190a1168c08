package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"strings"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
)

const spiffeModule = "github.com/spiffe/go-spiffe/v2"

// judgeBySPIFFE judges tokens as JWT-SVIDs of one trust domain, whose bundle is
// the issuer's JWK Set, fetched once.
func judgeBySPIFFE(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("spiffe", flag.ExitOnError)
	issuer := addIssuerFlags(flags)
	name := flags.String("trust-domain", "", "`NAME` of the tokens' trust domain")
	if err := parseRequired(flags, args); err != nil {
		return err
	}
	trustDomain, err := spiffeid.TrustDomainFromString(*name)
	if err != nil {
		return err
	}
	client, err := issuer.client()
	if err != nil {
		return err
	}
	jwks, err := fetchJWKS(ctx, client, issuer.url)
	if err != nil {
		return err
	}
	bundle, err := jwtbundle.Parse(trustDomain, jwks)
	if err != nil {
		return err
	}

	return serve(spiffeModule, func(token string) (facts, error) {
		svid, err := jwtsvid.ParseAndValidate(token, bundle, []string{issuer.audience})
		if err != nil {
			return nil, err
		}
		return facts{"id": svid.ID.String(), "audience": svid.Audience}, nil
	})
}

// fetchJWKS follows an issuer's discovery document to its JWK Set. The document
// must name the issuer that was asked.
func fetchJWKS(ctx context.Context, client *http.Client, issuer string) ([]byte, error) {
	document, err := fetch(ctx, client, strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return nil, err
	}
	var discovery struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(document, &discovery); err != nil {
		return nil, fmt.Errorf("discovery document: %w", err)
	}
	if discovery.Issuer != issuer {
		return nil, fmt.Errorf("discovery document: issuer is %q, asked for %q", discovery.Issuer, issuer)
	}
	return fetch(ctx, client, discovery.JWKSURI)
}
