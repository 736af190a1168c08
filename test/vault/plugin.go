package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-multierror"
	kubeauth "github.com/hashicorp/vault-plugin-auth-kubernetes"
	"github.com/hashicorp/vault/sdk/helper/errutil"
	"github.com/hashicorp/vault/sdk/logical"
)

const pluginModule = "github.com/hashicorp/vault-plugin-auth-kubernetes"

// leaseTTL is Vault's own default for a token and for the longest-lived one.
const leaseTTL = 768 * time.Hour

// question is a line of standard input.
type question struct {
	Op         string         `json:"op"`
	Path       string         `json:"path"`
	Data       map[string]any `json:"data"`
	RemoteAddr string         `json:"remoteAddr"`
}

// operations are those that Vault makes of HTTP methods. It makes both POST and
// PUT an update, and then asks the plugin whether the object exists; so create
// and update are the same question.
var operations = map[string]logical.Operation{
	"create": logical.UpdateOperation,
	"update": logical.UpdateOperation,
	"read":   logical.ReadOperation,
	"delete": logical.DeleteOperation,
	"list":   logical.ListOperation,
	"renew":  logical.RenewOperation,
}

// answer is what a client of Vault would see, without what only Vault's core
// knows: a login's body has neither token nor lease, so what the plugin asked
// the core for comes beside it.
type answer struct {
	Status int             `json:"status"`
	Body   json.RawMessage `json:"body"`
	Auth   *grant          `json:"auth,omitempty"`
}

// grant is what the plugin wants a token to be. Durations are in seconds.
type grant struct {
	Alias           *logical.Alias    `json:"alias"`
	BoundCIDRs      []string          `json:"bound_cidrs"`
	DisplayName     string            `json:"display_name"`
	ExplicitMaxTTL  float64           `json:"explicit_max_ttl"`
	InternalData    map[string]any    `json:"internal_data"`
	MaxTTL          float64           `json:"max_ttl"`
	Metadata        map[string]string `json:"metadata"`
	NoDefaultPolicy bool              `json:"no_default_policy"`
	NumUses         int               `json:"num_uses"`
	Period          float64           `json:"period"`
	Policies        []string          `json:"policies"`
	Renewable       bool              `json:"renewable"`
	TokenType       string            `json:"token_type"`
	TTL             float64           `json:"ttl"`
}

// answerAsPlugin answers one question after the other until standard input is
// closed, as a Vault whose auth method is mounted and whose client may do
// everything.
func answerAsPlugin(ctx context.Context, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %q", args[0])
	}
	version, err := moduleVersion(pluginModule)
	if err != nil {
		return err
	}
	mount, err := newMount(ctx)
	if err != nil {
		return err
	}
	answers := json.NewEncoder(os.Stdout)
	answers.SetEscapeHTML(false)
	if err := answers.Encode(map[string]any{"ready": true, "version": version}); err != nil {
		return err
	}

	questions := json.NewDecoder(os.Stdin)
	// As Vault reads a body, so that the plugin sees the same types.
	questions.UseNumber()
	for {
		var asked question
		if err := questions.Decode(&asked); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("standard input must hold one JSON object per line: %w", err)
		}
		var given answer
		if asked.Op == "reset" {
			if mount, err = newMount(ctx); err != nil {
				return err
			}
			given = answer{Status: 204}
		} else if given, err = mount.ask(ctx, asked); err != nil {
			return err
		}
		if err := answers.Encode(given); err != nil {
			return err
		}
	}
}

// mount is the plugin with storage of its own.
type mount struct {
	backend logical.Backend
	storage logical.Storage
}

func newMount(ctx context.Context) (*mount, error) {
	storage := &logical.InmemStorage{}
	backend, err := kubeauth.Factory(ctx, &logical.BackendConfig{
		Logger:      hclog.New(&hclog.LoggerOptions{Output: os.Stderr, Level: hclog.Debug}),
		System:      logical.StaticSystemView{DefaultLeaseTTLVal: leaseTTL, MaxLeaseTTLVal: leaseTTL},
		StorageView: storage,
	})
	if err != nil {
		return nil, err
	}
	return &mount{backend, storage}, nil
}

// ask does with the plugin what Vault's core does.
func (m *mount) ask(ctx context.Context, asked question) (answer, error) {
	operation, known := operations[asked.Op]
	if !known {
		return answer{}, fmt.Errorf("no operation %q", asked.Op)
	}
	request := &logical.Request{
		ID:         "00000000-0000-0000-0000-000000000000",
		Operation:  operation,
		Path:       asked.Path,
		Data:       asked.Data,
		Storage:    m.storage,
		Connection: &logical.Connection{RemoteAddr: asked.RemoteAddr},
	}
	if operation == logical.ListOperation && !strings.HasSuffix(request.Path, "/") {
		request.Path += "/"
	}
	if operation == logical.UpdateOperation {
		checked, exists, err := m.backend.HandleExistenceCheck(ctx, request)
		var invalid errutil.UserError
		switch {
		case errors.As(err, &invalid):
			return render(request, logical.ErrorResponse(invalid.Error()), logical.ErrInvalidRequest)
		case err != nil && !errors.Is(err, logical.ErrUnsupportedPath):
			return answer{}, err
		case checked && !exists:
			request.Operation = logical.CreateOperation
		}
	}
	if operation == logical.RenewOperation {
		request.Auth = &logical.Auth{InternalData: asked.Data}
	}

	response, err := m.backend.HandleRequest(ctx, request)
	if request.Path != "login" {
		if response != nil {
			response.MountType = "kubernetes"
		}
		if err != nil {
			// Vault collects errors, except those of a login; it shows in the text.
			err = multierror.Append(nil, err)
		}
	}
	return render(request, response, err)
}

// render does with an answer of the plugin what Vault's HTTP server does.
func render(request *logical.Request, response *logical.Response, err error) (answer, error) {
	recorder := httptest.NewRecorder()
	status, err := logical.RespondErrorCommon(request, response, err)
	if status != 0 || err != nil {
		logical.RespondError(recorder, status, err)
		return answer{Status: recorder.Code, Body: recorder.Body.Bytes()}, nil
	}
	if response == nil {
		return answer{Status: 204}, nil
	}
	body := logical.LogicalResponseToHTTPResponse(response)
	body.RequestID = request.ID
	text, err := json.Marshal(body)
	return answer{Status: 200, Body: text, Auth: grantOf(response.Auth)}, err
}

func grantOf(auth *logical.Auth) *grant {
	if auth == nil {
		return nil
	}
	cidrs := []string{}
	for _, cidr := range auth.BoundCIDRs {
		cidrs = append(cidrs, cidr.String())
	}
	return &grant{
		Alias:           auth.Alias,
		BoundCIDRs:      cidrs,
		DisplayName:     auth.DisplayName,
		ExplicitMaxTTL:  auth.ExplicitMaxTTL.Seconds(),
		InternalData:    auth.InternalData,
		MaxTTL:          auth.MaxTTL.Seconds(),
		Metadata:        auth.Metadata,
		NoDefaultPolicy: auth.NoDefaultPolicy,
		NumUses:         auth.NumUses,
		Period:          auth.Period.Seconds(),
		Policies:        auth.Policies,
		Renewable:       auth.Renewable,
		TokenType:       auth.TokenType.String(),
		TTL:             auth.TTL.Seconds(),
	}
}

// moduleVersion names the release of a dependency that this binary was linked
// with. The build knows; a constant here could only be wrong.
func moduleVersion(path string) (string, error) {
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return "", errors.New("built without module support")
	}
	for _, dependency := range build.Deps {
		if dependency.Path == path {
			return dependency.Path + " " + dependency.Version, nil
		}
	}
	return "", fmt.Errorf("built without %s", path)
}
