// Shows the OpenAPI document. A key entered under "Authorize" is gone when the page is closed.
SwaggerUIBundle({
  url: "/api/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: "none",
});
