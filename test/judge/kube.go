package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/cel"
	"k8s.io/apiserver/pkg/authentication/token/union"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"
)

const kubeModule = "k8s.io/apiserver"

// codecs decode as kube-apiserver does for --authentication-config: every
// version of the file's kind that it knows, and no member that it doesn't.
var codecs = newStrictCodecs()

func newStrictCodecs() serializer.CodecFactory {
	scheme := runtime.NewScheme()
	install.Install(scheme)
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict)
}

// parseConfiguration decodes an AuthenticationConfiguration and validates it,
// CEL expressions included. The disallowed issuers are those that sign the
// cluster's service account tokens.
func parseConfiguration(data []byte, disallowedIssuers []string) (*apiserver.AuthenticationConfiguration, error) {
	if len(data) == 0 {
		return nil, errors.New("empty config data")
	}
	object, err := runtime.Decode(codecs.UniversalDecoder(), data)
	if err != nil {
		return nil, err
	}
	configuration, ok := object.(*apiserver.AuthenticationConfiguration)
	if !ok {
		return nil, fmt.Errorf("expected AuthenticationConfiguration, got %T", object)
	}
	problems := validation.ValidateAuthenticationConfiguration(cel.NewDefaultCompiler(), configuration, disallowedIssuers)
	return configuration, problems.ToAggregate()
}

// validate prints, file by file, whether kube-apiserver would start with it.
func validate(_ context.Context, args []string) error {
	flags := flag.NewFlagSet("validate", flag.ExitOnError)
	var disallowedIssuers []string
	flags.Func("disallowed-issuer", "`URL` of a service account issuer; may be repeated", func(url string) error {
		disallowedIssuers = append(disallowedIssuers, url)
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("no file to validate")
	}

	answers := json.NewEncoder(os.Stdout)
	for _, file := range flags.Args() {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		_, refusal := parseConfiguration(data, disallowedIssuers)
		answer := verdict(nil, refusal)
		answer["file"] = file
		if err := answers.Encode(answer); err != nil {
			return err
		}
	}
	return nil
}

// judgeByKube judges tokens by the `jwt` entries of an
// AuthenticationConfiguration. It answers with the user that kube-apiserver
// would go on to authorize.
func judgeByKube(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("kube", flag.ExitOnError)
	file := flags.String("authentication-config", "", "AuthenticationConfiguration `FILE`")
	if err := parseRequired(flags, args); err != nil {
		return err
	}
	data, err := os.ReadFile(*file)
	if err != nil {
		return err
	}
	configuration, err := parseConfiguration(data, nil)
	if err != nil {
		return err
	}
	tokens, err := newTokenAuthenticator(ctx, configuration)
	if err != nil {
		return err
	}

	return serve(kubeModule, func(token string) (facts, error) {
		response, ok, err := tokens.AuthenticateToken(ctx, token)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, errors.New("no entry of the configuration is for this token's issuer")
		}
		extra := map[string][]string{}
		maps.Copy(extra, response.User.GetExtra())
		return facts{
			"username": response.User.GetName(),
			"uid":      response.User.GetUID(),
			"groups":   append([]string{}, response.User.GetGroups()...),
			"extra":    extra,
		}, nil
	})
}

// newTokenAuthenticator assembles the entries' authenticators as kube-apiserver
// does, with every algorithm that it admits beside --authentication-config, and
// returns once each of them holds its issuer's discovery document.
func newTokenAuthenticator(ctx context.Context, configuration *apiserver.AuthenticationConfiguration) (authenticator.Token, error) {
	started, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()

	var entries []authenticator.Token
	for _, jwt := range configuration.JWT {
		options := oidc.Options{
			JWTAuthenticator:     jwt,
			SupportedSigningAlgs: oidc.AllValidSigningAlgorithms(),
		}
		if pem := jwt.Issuer.CertificateAuthority; pem != "" {
			ca, err := dynamiccertificates.NewStaticCAContent("issuer", []byte(pem))
			if err != nil {
				return nil, err
			}
			options.CAContentProvider = ca
		}
		entry, err := oidc.New(ctx, options)
		if err != nil {
			return nil, err
		}
		if err := waitUntilHealthy(started, entry); err != nil {
			return nil, fmt.Errorf("issuer %s: %w", jwt.Issuer.URL, err)
		}
		entries = append(entries, entry)
	}
	return union.NewFailOnError(entries...), nil
}

// waitUntilHealthy waits for an authenticator's discovery, which runs in the
// background. When time is up it returns what discovery last failed with.
func waitUntilHealthy(ctx context.Context, entry oidc.AuthenticatorTokenWithHealthCheck) error {
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		err := entry.HealthCheck()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-poll.C:
		}
	}
}
