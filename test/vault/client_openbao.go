package main

import (
	"context"
	"net/http"
	"os"
	"time"

	openbao "github.com/openbao/openbao/api/v2"
)

func openbaoSteps(address, caFile string, observe func(http.RoundTripper) http.RoundTripper) (map[string]step, error) {
	config := openbao.DefaultConfig()
	config.Address = address
	if err := config.ConfigureTLS(&openbao.TLSConfig{CACert: caFile}); err != nil {
		return nil, err
	}
	config.HttpClient.Transport = observe(config.HttpClient.Transport)
	client, err := openbao.NewClient(config)
	if err != nil {
		return nil, err
	}
	token := client.Auth().Token()
	// What was logged in with; a watcher wants the whole of it.
	var session *openbao.Secret

	return map[string]step{
		"login": func(ctx context.Context, asked request) (any, error) {
			var err error
			session, err = client.Auth().Login(ctx, serviceAccount{asked})
			return session, err
		},
		"set-token": func(_ context.Context, asked request) (any, error) {
			client.SetToken(asked.Token)
			return nil, nil
		},
		"lookup-self": func(ctx context.Context, _ request) (any, error) {
			return token.LookupSelfWithContext(ctx)
		},
		"renew-self": func(ctx context.Context, asked request) (any, error) {
			return token.RenewSelfWithContext(ctx, asked.Increment)
		},
		"watch": func(ctx context.Context, asked request) (any, error) {
			watcher, err := client.NewLifetimeWatcher(&openbao.LifetimeWatcherInput{Secret: session, Increment: asked.Increment})
			if err != nil {
				return nil, err
			}
			go watcher.Start()
			defer watcher.Stop()
			select {
			case renewal := <-watcher.RenewCh():
				return renewal.Secret, nil
			case err := <-watcher.DoneCh():
				return nil, err
			case <-time.After(watchTimeout):
				return nil, context.DeadlineExceeded
			}
		},
		"revoke-self": func(ctx context.Context, _ request) (any, error) {
			// The argument is of no use and only there for compatibility.
			return nil, token.RevokeSelfWithContext(ctx, "")
		},
		"lookup": func(ctx context.Context, asked request) (any, error) {
			return token.LookupWithContext(ctx, asked.Token)
		},
		"lookup-accessor": func(ctx context.Context, asked request) (any, error) {
			return token.LookupAccessorWithContext(ctx, asked.Accessor)
		},
		"revoke-accessor": func(ctx context.Context, asked request) (any, error) {
			return nil, token.RevokeAccessorWithContext(ctx, asked.Accessor)
		},
		"read": func(ctx context.Context, asked request) (any, error) {
			return client.Logical().ReadWithContext(ctx, asked.Path)
		},
		"write": func(ctx context.Context, asked request) (any, error) {
			return client.Logical().WriteWithContext(ctx, asked.Path, asked.Data)
		},
		"list": func(ctx context.Context, asked request) (any, error) {
			return client.Logical().ListWithContext(ctx, asked.Path)
		},
		"delete": func(ctx context.Context, asked request) (any, error) {
			return client.Logical().DeleteWithContext(ctx, asked.Path)
		},
		"enable": func(ctx context.Context, asked request) (any, error) {
			return nil, client.Sys().EnableAuthWithOptionsWithContext(ctx, asked.Mount, &openbao.EnableAuthOptions{Type: "kubernetes"})
		},
		"disable": func(ctx context.Context, asked request) (any, error) {
			return nil, client.Sys().DisableAuthWithContext(ctx, asked.Mount)
		},
		"mounts": func(ctx context.Context, _ request) (any, error) {
			return client.Sys().ListAuthWithContext(ctx)
		},
		"health": func(ctx context.Context, _ request) (any, error) {
			return client.Sys().HealthWithContext(ctx)
		},
		"seal-status": func(ctx context.Context, _ request) (any, error) {
			return client.Sys().SealStatusWithContext(ctx)
		},
		"leader": func(ctx context.Context, _ request) (any, error) {
			return client.Sys().LeaderWithContext(ctx)
		},
	}, nil
}

// serviceAccount logs in as OpenBao's own helper does, which is a module that
// no proxy has.
type serviceAccount struct{ request }

func (s serviceAccount) Login(ctx context.Context, client *openbao.Client) (*openbao.Secret, error) {
	jwt, err := os.ReadFile(s.JWTFile)
	if err != nil {
		return nil, err
	}
	return client.Logical().WriteWithContext(ctx, "auth/"+s.Mount+"/login", map[string]any{
		"role": s.Role,
		"jwt":  string(jwt),
	})
}
