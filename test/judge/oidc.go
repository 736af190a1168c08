package main

import (
	"context"
	"flag"

	"github.com/coreos/go-oidc/v3/oidc"
)

const oidcModule = "github.com/coreos/go-oidc/v3"

// judgeByOIDC judges tokens as ID tokens of an OpenID Connect provider. Which
// algorithms count is up to the provider's discovery document; keys are fetched
// when a token needs them.
func judgeByOIDC(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("oidc", flag.ExitOnError)
	issuer := addIssuerFlags(flags)
	if err := parseRequired(flags, args); err != nil {
		return err
	}
	client, err := issuer.client()
	if err != nil {
		return err
	}
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, client), issuer.url)
	if err != nil {
		return err
	}
	verifier := provider.Verifier(&oidc.Config{ClientID: issuer.audience})

	return serve(oidcModule, func(token string) (facts, error) {
		idToken, err := verifier.Verify(ctx, token)
		if err != nil {
			return nil, err
		}
		return facts{"subject": idToken.Subject}, nil
	})
}
