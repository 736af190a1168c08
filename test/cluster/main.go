// Command cluster runs a kube-apiserver and the etcd behind it in one process,
// for tests that want to hear the real one's opinion of an
// AuthenticationConfiguration, of a token or of a TokenReview.
//
//	cluster --dir DIR --authentication-config FILE
//	        --service-account-issuer URL --service-account-key FILE
//
// README.md describes what it prints, what it leaves in DIR and what it lacks.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

// startTimeout bounds the time to readiness, which is a few seconds on an idle
// machine. Whoever waits for the ready line should have more patience than this.
const startTimeout = time.Minute

// settings are the command line.
type settings struct {
	dir                  string
	authenticationConfig string
	serviceAccountIssuer string
	serviceAccountKey    string
}

// file returns the path of a file in the cluster's directory.
func (s settings) file(name string) string { return filepath.Join(s.dir, name) }

// A readyLine is what a test needs to talk to the cluster and to understand its
// answers: one line of JSON on standard output, when all of it works.
type readyLine struct {
	Server               string `json:"server"`
	CertificateAuthority string `json:"certificateAuthority"`
	Kubeconfig           string `json:"kubeconfig"`
	Log                  string `json:"log"`
}

func main() {
	var s settings
	flag.StringVar(&s.dir, "dir", "", "`DIR` for everything that the cluster writes")
	flag.StringVar(&s.authenticationConfig, "authentication-config", "", "AuthenticationConfiguration `FILE`, watched for changes")
	flag.StringVar(&s.serviceAccountIssuer, "service-account-issuer", "", "issuer `URL` of the service account tokens")
	flag.StringVar(&s.serviceAccountKey, "service-account-key", "", "PEM `FILE` of the private key, RSA or EC, that signs them")
	flag.Parse()
	flag.VisitAll(func(f *flag.Flag) {
		if f.Value.String() == "" {
			fail(fmt.Errorf("flag --%s is required", f.Name))
		}
	})

	if err := run(s); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "cluster:", err)
	os.Exit(1)
}

// run starts the cluster and returns when it has ended: nil if it was asked to.
func run(s settings) error {
	dir, err := filepath.Abs(s.dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	s.dir = dir
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	ready := readyLine{
		Server:               "https://" + listener.Addr().String(),
		CertificateAuthority: s.file("ca.crt"),
		Kubeconfig:           s.file("admin.kubeconfig"),
		Log:                  s.file("apiserver.log"),
	}
	if err := writeCredentials(s, ready); err != nil {
		return err
	}
	etcd, err := startEtcd(s)
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	options, err := apiserverOptions(s, listener, ready.Log)
	if err != nil {
		return err
	}

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	stopped := background(func() error { return app.Run(ctx, options) })
	asked := background(awaitRequestToEnd)

	// Until it is ready, kube-apiserver takes a request to stop for a fatal
	// error: it is left to die with the process.
	select {
	case err := <-background(func() error { return awaitReadiness(ready) }):
		if err != nil {
			return err
		}
	case err := <-stopped:
		return err
	case <-asked:
		return nil
	}
	if err := json.NewEncoder(os.Stdout).Encode(ready); err != nil {
		return err
	}

	select {
	case err := <-stopped:
		return err
	case <-asked:
	}
	stop()
	err = <-stopped
	etcd.Close()
	return err
}

// background runs f in the background and returns where its outcome will arrive.
func background(f func() error) <-chan error {
	outcome := make(chan error, 1)
	go func() { outcome <- f() }()
	return outcome
}

// awaitRequestToEnd returns on a signal, or when standard input is closed: a
// cluster must not outlive the test that started it, however the test ends. A
// second signal then kills at once. The error is always nil.
func awaitRequestToEnd() error {
	signalled, restore := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer restore()
	closed := background(func() error {
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	})
	select {
	case <-signalled.Done():
	case <-closed:
	}
	return nil
}

// awaitReadiness returns once the apiserver is ready and has created the
// namespace that everybody starts with.
func awaitReadiness(ready readyLine) error {
	config, err := clientcmd.BuildConfigFromFlags("", ready.Kubeconfig)
	if err != nil {
		return err
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(startTimeout)
	for _, path := range []string{"/readyz", "/api/v1/namespaces/default"} {
		for !succeeds(client, ready.Server+path) {
			if time.Now().After(deadline) {
				return fmt.Errorf("no success from %s in %v, see %s", path, startTimeout, ready.Log)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}

func succeeds(client *http.Client, url string) bool {
	response, err := client.Get(url)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode == http.StatusOK
}
