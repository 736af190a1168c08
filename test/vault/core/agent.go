package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/command/agentproxyshared/auth"
	"github.com/hashicorp/vault/command/agentproxyshared/auth/kubernetes"
	"github.com/hashicorp/vault/command/agentproxyshared/sink"
	"github.com/hashicorp/vault/command/agentproxyshared/sink/file"
)

// Vault Agent waits at least a second and at most five minutes before it tries
// again. A test has no five minutes.
const maxBackoff = 2 * time.Second

// authenticate keeps a token in a file, as Vault Agent does: it logs in, renews
// the token for as long as it can be renewed, and logs in again.
func authenticate(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("agent", flag.ExitOnError)
	address := flags.String("address", "", "`URL` of the server")
	caFile := flags.String("ca", "", "PEM `FILE` of the CA of the server's certificate; the system's if absent")
	mount := flags.String("mount", authType, "`NAME` of the auth method's mount")
	role := flags.String("role", "", "`NAME` of the role")
	jwtFile := flags.String("jwt", "", "`FILE` with the service account's token")
	sinkFile := flags.String("sink", "", "`FILE` that the token is written to")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *address == "" || *role == "" || *jwtFile == "" || *sinkFile == "" || flags.NArg() > 0 {
		return errors.New("--address, --role, --jwt and --sink are required, and nothing else but --ca and --mount is taken")
	}
	client, err := newClient(*address, *caFile)
	if err != nil {
		return err
	}
	logger := newLogger()
	method, err := kubernetes.NewKubernetesAuthMethod(&auth.AuthConfig{
		Logger:    logger,
		MountPath: "auth/" + *mount,
		Config:    map[string]any{"role": *role, "token_path": *jwtFile},
	})
	if err != nil {
		return err
	}
	out := &sink.SinkConfig{Logger: logger, Config: map[string]any{"path": *sinkFile}}
	if out.Sink, err = file.NewFileSink(out); err != nil {
		return err
	}
	handler := auth.NewAuthHandler(&auth.AuthHandlerConfig{
		Logger:     logger,
		Client:     client,
		MinBackoff: time.Second,
		MaxBackoff: maxBackoff,
	})
	writer := sink.NewSinkServer(&sink.SinkServerConfig{Logger: logger, Client: client, Context: ctx})
	go func() { _ = writer.Run(ctx, handler.OutputCh, []*sink.SinkConfig{out}, &atomic.Bool{}) }()
	if err := json.NewEncoder(os.Stdout).Encode(map[string]any{"ready": true}); err != nil {
		return err
	}
	return handler.Run(ctx, method)
}

func newClient(address, caFile string) (*api.Client, error) {
	config := api.DefaultConfig()
	config.Address = address
	if err := config.ConfigureTLS(&api.TLSConfig{CACert: caFile}); err != nil {
		return nil, err
	}
	return api.NewClient(config)
}
