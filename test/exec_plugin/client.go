package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"reflect"
	"sync"
	"time"

	clientauthentication "k8s.io/client-go/pkg/apis/clientauthentication"
	"k8s.io/client-go/plugin/pkg/client/auth/exec"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/metrics"
)

// A request is a line of standard input.
type request struct {
	// Get is a path on the server.
	Get string `json:"get"`
	// AdvanceSeconds is how much later it is for client-go from now on, and for
	// nobody else.
	AdvanceSeconds int `json:"advanceSeconds"`
}

// A result is what became of it.
type result struct {
	Status int    `json:"status"`
	Body   string `json:"body"`
	Error  string `json:"error"`
	// Runs are the exit statuses of the plugin, one for each time that it ran.
	Runs []int `json:"runs"`
	// Stderr is what the plugin and client-go had to say.
	Stderr string `json:"stderr"`
}

// runClient sends requests as a program does that has its credential from the
// exec plugin of a kubeconfig: one client for all of them.
func runClient(args []string) error {
	flags := flag.NewFlagSet("client", flag.ExitOnError)
	kubeconfig := flags.String("kubeconfig", "", "`FILE` whose current context is used")
	if err := parseRequired(flags, args); err != nil {
		return err
	}
	complaints, err := redirectStderr()
	if err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	clock, err := setClock(config)
	if err != nil {
		return err
	}
	runs := &runCounter{}
	metrics.ExecPluginCalls = runs

	return serve(func(wanted request) any {
		clock.advance(time.Duration(wanted.AdvanceSeconds) * time.Second)
		answer := result{}
		if response, err := client.Get(config.Host + wanted.Get); err != nil {
			answer.Error = err.Error()
		} else {
			body, _ := io.ReadAll(response.Body)
			_ = response.Body.Close()
			answer.Status, answer.Body = response.StatusCode, string(body)
		}
		answer.Runs, answer.Stderr = runs.take(), complaints.take()
		return answer
	})
}

// A runCounter is told by client-go each time that it has run a plugin.
type runCounter struct {
	mu    sync.Mutex
	codes []int
}

func (r *runCounter) Increment(exitCode int, _ string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.codes = append(r.codes, exitCode)
}

func (r *runCounter) take() []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	codes := append([]int{}, r.codes...)
	r.codes = nil
	return codes
}

// offsetClock is the real time and something.
type offsetClock struct {
	mu     sync.Mutex
	offset time.Duration
}

func (c *offsetClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.offset)
}

func (c *offsetClock) advance(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset += by
}

// setClock gives the client's authenticator another clock. client-go has one
// for its own tests, in a member that it does not export; the authenticator is
// the one of the client, since there is one for each plugin and cluster.
func setClock(config *rest.Config) (*offsetClock, error) {
	var cluster *clientauthentication.Cluster
	if config.ExecProvider.ProvideClusterInfo {
		var err error
		if cluster, err = rest.ConfigToExecCluster(config); err != nil {
			return nil, err
		}
	}
	authenticator, err := exec.GetAuthenticator(config.ExecProvider, cluster)
	if err != nil {
		return nil, err
	}
	clock := &offsetClock{}
	member := reflect.ValueOf(authenticator).Elem().FieldByName("now")
	if member.Kind() != reflect.Func {
		return nil, fmt.Errorf("client-go's authenticator has no clock any more")
	}
	reflect.NewAt(member.Type(), member.Addr().UnsafePointer()).Elem().Set(reflect.ValueOf(clock.now))
	return clock, nil
}

// complaints is standard error, to be read.
type complaints struct {
	file *os.File
	read int64
}

// redirectStderr must come before client-go takes os.Stderr for its plugins. A
// file, so that what a plugin has written is there when the plugin has ended.
func redirectStderr() (*complaints, error) {
	file, err := os.CreateTemp("", "exec-plugin-stderr-")
	if err != nil {
		return nil, err
	}
	_ = os.Remove(file.Name())
	os.Stderr = file
	return &complaints{file: file}, nil
}

func (c *complaints) take() string {
	text, _ := io.ReadAll(io.NewSectionReader(c.file, c.read, 1<<20))
	c.read += int64(len(text))
	return string(text)
}
