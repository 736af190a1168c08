package main

import (
	"context"
	"net"
	"net/url"
	"os"

	"github.com/spf13/pflag"
	"go.etcd.io/etcd/server/v3/embed"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	logsapi "k8s.io/component-base/logs/api/v1"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

// startEtcd starts etcd on a Unix socket and waits until it serves. It is told
// what holds for a test: nothing must survive a power failure, and an only
// member needn't wait for others before it leads.
func startEtcd(s settings) (*embed.Etcd, error) {
	config := embed.NewConfig()
	config.Dir = s.file("etcd")
	config.ListenClientUrls = []url.URL{etcdURL(s)}
	config.ListenPeerUrls = nil
	config.LogOutputs = []string{s.file("etcd.log")}
	config.UnsafeNoFsync = true
	config.TickMs, config.ElectionMs = 10, 100
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return nil, err
	}
	<-etcd.Server.ReadyNotify()
	return etcd, nil
}

// etcdURL is where the apiserver finds etcd.
func etcdURL(s settings) url.URL {
	return url.URL{Scheme: "unix", Path: s.file("etcd.sock")}
}

// apiserverOptions returns the options that kube-apiserver would read from its
// command line, complete and valid, and directs its log to a file.
func apiserverOptions(s settings, listener net.Listener, log string) (apiserver.CompletedOptions, error) {
	options := apiserver.NewServerRunOptions()
	flags := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
	for _, set := range options.Flags().FlagSets {
		flags.AddFlagSet(set)
	}
	etcd := etcdURL(s)
	err := flags.Parse([]string{
		"--etcd-servers=" + etcd.String(),
		"--external-hostname=127.0.0.1",
		"--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=192.0.2.0/24", // no Service is ever reached
		"--tls-cert-file=" + s.file("apiserver.crt"),
		"--tls-private-key-file=" + s.file("apiserver.key"),
		"--client-ca-file=" + s.file("ca.crt"),
		"--service-account-issuer=" + s.serviceAccountIssuer,
		"--service-account-signing-key-file=" + s.serviceAccountKey,
		"--service-account-key-file=" + s.file("service-account.pub"),
		"--authentication-config=" + s.authenticationConfig,
		"--authorization-mode=Node,RBAC",
	})
	if err != nil {
		return apiserver.CompletedOptions{}, err
	}
	options.SecureServing.Listener = listener
	options.SecureServing.BindPort = listener.Addr().(*net.TCPAddr).Port

	stream, err := os.Create(log)
	if err != nil {
		return apiserver.CompletedOptions{}, err
	}
	streams := &logsapi.LoggingOptions{ErrorStream: stream, InfoStream: stream}
	if err := logsapi.ValidateAndApplyWithOptions(options.Logs, streams, nil); err != nil {
		return apiserver.CompletedOptions{}, err
	}
	if err := options.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return apiserver.CompletedOptions{}, err
	}
	completed, err := options.Complete(context.Background())
	if err != nil {
		return apiserver.CompletedOptions{}, err
	}
	return completed, utilerrors.NewAggregate(completed.Validate())
}
